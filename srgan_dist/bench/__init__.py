"""Measurements of this machine, each beside the way that others take in the same run."""
