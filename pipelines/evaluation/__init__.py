"""Records to scores with intervals, and `graft evaluate`."""
