"""The simulation of Chen et al. 2025 (arXiv:2510.18874): does the objective retain, or a rate factor?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
