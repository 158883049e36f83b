"""The model card, the check of what may be published, and the repositories on the hub."""
