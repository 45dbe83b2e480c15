"""Degradations: low-resolution images made on the device, while training."""
