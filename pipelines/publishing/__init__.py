"""The model card, what may be published, and the hub repositories."""
