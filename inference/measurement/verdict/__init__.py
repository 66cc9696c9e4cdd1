"""Whether a measurement can be trusted, by predictive checks, and in words."""
