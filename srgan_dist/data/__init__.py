"""Packs photographs into shards, checks shards, and reads them as batches of training patches."""
