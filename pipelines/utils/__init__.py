"""Helpers for all packages: hardware, processes, files, seeds, progress, formatting of numbers."""
