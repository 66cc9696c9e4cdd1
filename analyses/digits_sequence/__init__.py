"""Real networks in a sequence of tasks: is each task lost when the mixture says that it is?

The transformers of `analyses.digits` learn one group of digits after the other by the same objectives. What
they draw is measured with a reference a task, counted by classifiers, and held against the mixture's course.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
