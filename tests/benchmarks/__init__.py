"""Speed as ratios, us against what a user would run instead, side by side in one run. Not tests: `make bench`."""
