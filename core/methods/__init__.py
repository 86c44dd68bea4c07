"""The training methods: one file each, found by core.catalog."""
