"""A pipeline over HTTP."""
