"""Samples and references as users give them: checked, held or streamed."""
