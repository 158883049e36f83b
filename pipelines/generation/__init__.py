"""Generate results (images) with a model: sampling, comparison with real data, requests."""
