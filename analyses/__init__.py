"""What a user runs: one module a question, each with ``run`` and ``plot``.

A module is imported when it is first used; the stub beside this file lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
