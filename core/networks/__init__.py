"""Networks that are saved as weights and configuration, and loaded again by name."""
