"""``srgan-dist bench scaling``: several ranks, and a prediction for many."""
