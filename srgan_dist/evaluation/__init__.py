"""How good a generator is: metrics, test sets, validation."""
