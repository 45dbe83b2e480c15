"""Shared by the benchmarks: child processes, timing, test images."""
