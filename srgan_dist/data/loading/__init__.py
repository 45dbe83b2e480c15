"""From positions in the infinite stream of patches to batches on the device."""
