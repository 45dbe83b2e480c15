"""The commands: options, and the calls of what does the work."""
