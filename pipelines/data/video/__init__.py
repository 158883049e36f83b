"""Videos: reading frames, clips of them, their augmentation, and features of videos."""
