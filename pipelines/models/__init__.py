"""Load and shape networks: one file per family."""
