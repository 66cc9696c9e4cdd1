"""How many items, answers an item and training seeds does it take to see what was forgotten?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
