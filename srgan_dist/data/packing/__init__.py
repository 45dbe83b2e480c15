"""Packs folders of images into shards."""
