"""How learners are trained and measured: loops, estimators and the layout of their results.

Names are those of the stub beside this file; each is imported when it is first used, so that a command loads
only what it needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
