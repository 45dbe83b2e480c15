"""The configuration: every name, type, limit and default; reading it; comparing it with a checkpoint's."""
