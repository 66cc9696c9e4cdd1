"""Forgetting from evaluation logs: graded answers of a base and of its checkpoints to the same items."""
