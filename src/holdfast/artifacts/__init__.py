"""Model files: what they are and whether they may be opened."""
