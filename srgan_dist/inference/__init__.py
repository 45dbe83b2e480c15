"""Using trained weights."""
