"""Weights, displacements and drifts of several tasks, each with a reference of its own."""
