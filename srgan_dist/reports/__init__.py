"""Reports about runs: pages that a browser shows without a server."""
