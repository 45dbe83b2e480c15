"""Sweeps without a server: trials of an experiment proposed, pruned and kept by Optuna, from W&B's own sweep file."""
