"""``srgan-dist bench loader``: reading patches."""
