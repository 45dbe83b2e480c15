"""Before a run: what fits, what it costs, what would fail."""
