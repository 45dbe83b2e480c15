"""The commands: options, and the calls of what does the work."""

from srgan_dist.cli.commands import main, train

__all__ = ["main", "train"]
