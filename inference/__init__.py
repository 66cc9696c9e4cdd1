"""How learners are trained and measured: loops, estimators and the layout of their results."""

from inference.results import open, save
from inference.training import train

__all__ = ["open", "save", "train"]
