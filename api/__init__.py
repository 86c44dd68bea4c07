"""HTTP: what people and programs talk to."""
