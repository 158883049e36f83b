"""Texts: rows, passages, prompts, packed blocks."""
