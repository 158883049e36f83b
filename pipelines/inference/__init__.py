"""Finished models that answer."""
