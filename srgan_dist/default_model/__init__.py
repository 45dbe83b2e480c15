"""The default model: its weights, from which photographs it was trained, and what makes it again (`make model`)."""
