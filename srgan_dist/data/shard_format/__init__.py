"""The format of packed shards: manifest, index, encodings. shards/README.md specifies it."""
