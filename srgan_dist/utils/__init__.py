"""What every package may use: files that are whole or absent, hashes, units."""
