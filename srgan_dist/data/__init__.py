"""Photographs to packed shards, and packed shards to batches on the device."""
