"""The model hub: downloads, and patience with its network."""
