"""Where numbers and pictures go: metrics.jsonl, Weights & Biases, TensorBoard, the console."""
