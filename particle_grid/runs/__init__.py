"""One training run, in memory and on disk."""
