"""Generators, discriminators and frozen feature networks: tensors in, tensors out."""
