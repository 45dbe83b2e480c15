"""Benchmarks on this machine, each in turns with other implementations of the same task."""
