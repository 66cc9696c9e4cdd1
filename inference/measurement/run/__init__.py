"""A run, checkpoint by checkpoint: what is kept of each, and the groups of its result."""
