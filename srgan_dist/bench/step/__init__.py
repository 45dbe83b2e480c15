"""``srgan-dist bench step``: one training step."""
