"""Finding what is wrong with shards."""
