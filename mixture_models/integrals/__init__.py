"""Expectations over mixtures of Gaussian modes, exact to a stated error."""
