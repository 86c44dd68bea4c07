"""What is measured on a GPU, wherever one is at hand: `python -m benchmarks.device`."""
