"""The sources that data.train may name, and the cache on local disk of the remote ones."""
