"""A script for the hosted API, unchanged, against this server."""
