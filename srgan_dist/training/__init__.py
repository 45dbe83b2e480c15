"""Training: the step, the loop around it, and a run from its configuration to its result."""
