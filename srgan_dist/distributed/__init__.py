"""The machine: devices, ranks and what they agree on, memory, signals, hangs."""
