"""Training: the step, the loop around it, and all that one run needs."""
