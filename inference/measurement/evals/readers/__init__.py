"""Readers of evaluation logs: one file a format, all of them into the long form."""

from inference.measurement.evals.readers.read import read

__all__ = ["read"]
