"""The mixture of an old task and a new one: its parameters, covariances and NumPyro law."""
