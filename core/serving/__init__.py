"""Lets people try models out: a small process that loads models on demand, writes texts, and makes vectors of texts."""
