"""Lets people try models out: a small process that loads models on demand, writes texts, and makes vectors of texts."""

LINE_BYTES = 2**24  # of the longest message
