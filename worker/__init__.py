"""The worker: claims jobs, and supervises the processes that train them."""
