"""Which objective or run forgets less; trainings held against theory."""
