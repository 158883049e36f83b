"""Load finished models, and let them answer."""
