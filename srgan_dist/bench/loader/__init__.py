"""`bench loader`."""
