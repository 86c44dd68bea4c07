"""Endpoints that are told of jobs, wherever on the internet they are: shown, reached, sent to."""
