"""Checks before a run: what fits into memory, what it costs, what would fail."""
