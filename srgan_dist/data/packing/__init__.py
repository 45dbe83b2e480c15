"""From folders of images to packed shards."""
