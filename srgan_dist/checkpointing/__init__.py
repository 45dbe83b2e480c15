"""Saving and loading: checkpoints that are complete or absent, and weights for use."""
