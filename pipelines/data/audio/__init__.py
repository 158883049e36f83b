"""Recordings: read, augmented, as clips, transcripts and spectrograms."""
