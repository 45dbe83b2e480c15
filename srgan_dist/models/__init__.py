"""Generators, discriminators and frozen feature networks; they know tensors and numbers, not the configuration."""
