"""What every package may use: hardware, processes, files, seeds, progress, numbers as people read them."""
