"""At which settings do SDFT, TTT-Discover and OAPL forget? Maps of retention and old drift."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
