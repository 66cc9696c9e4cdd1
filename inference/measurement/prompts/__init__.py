"""Samples that come from the same prompt: what a prompt has of its own, and its integral."""
