"""What data.train may name, and bringing what is far away to the local disk."""
