"""Inference with trained weights."""
