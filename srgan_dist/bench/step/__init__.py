"""`bench step`."""
