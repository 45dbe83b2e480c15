"""What is minimised: pure functions of tensors, each with its equation."""
