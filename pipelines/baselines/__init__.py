"""Classical learners on hand-made features: what they reach on the rows of a run, next to its network."""
