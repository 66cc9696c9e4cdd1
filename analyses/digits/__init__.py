"""Real networks on real images: does a transformer forget what the two-mode mixture says that it does?

A small autoregressive transformer learns old digits (0 to 4) and a little of the new ones (5 to 9), and is
then post-trained on the new ones by the objectives of the mixture. Its checkpoints are sampled, embedded and
measured by `inference.measure`, as any user's are.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
