"""Images as arrays and tensors: reading, resizing, tiling, drawing side by side."""
