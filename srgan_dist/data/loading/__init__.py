"""From positions of the endless stream to batches on the device."""
