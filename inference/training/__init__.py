"""Finite-batch training: in all coordinates, or in the span of the means."""
