"""What can be known about a run without training."""
