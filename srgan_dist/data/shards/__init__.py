"""Opened shards, and reading patches out of them."""
