"""Measuring a generator: metrics, test sets, validation."""
