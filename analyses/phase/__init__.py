"""Where does which objective forget? The phase diagram over separation, batch size, and replay or anchor.

A learner whose old mode has become rare is trained at every point. Two lines of theory part the diagram:
below a batch size most batches hold no old sample (starvation), left of a separation the modes overlap so
much that old samples are claimed by the new mode (misassignment).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
