"""How much old behaviour a real checkpoint keeps and how far it has moved, from samples."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
