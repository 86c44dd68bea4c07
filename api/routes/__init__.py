"""The routes: one file a resource, each a few lines over core."""
