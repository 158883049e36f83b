"""One run: its stages, its loop, its folder."""
