"""What makes images: sampling, comparison with real data, requests."""
