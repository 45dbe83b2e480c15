"""Opens packed folders, local and remote, and reads patches from their shards."""
