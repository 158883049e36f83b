"""Losses as sums over a batch."""
