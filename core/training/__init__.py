"""The run: steps, log, stop, checkpoint; and what methods share around it."""
