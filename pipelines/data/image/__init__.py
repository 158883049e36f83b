"""Images: read, augmented, as pixels of one size."""
