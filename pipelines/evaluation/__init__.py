"""Scores with intervals from the records of a split, `graft evaluate` and `graft compare`."""
