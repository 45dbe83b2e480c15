"""`bench scaling`."""
