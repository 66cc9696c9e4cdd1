"""What is trained, toward what, by which divergence: NumPyro models, guides and ELBOs.

Names are those of the stub beside this file; each is imported when it is first used, so that a command loads
only what it needs.
"""

import lazy_loader

# ArviZ leaves a module numpyro that loads when it is used. A submodule imported before then would be made
# twice, and its own submodules be lost to the second.
import numpyro  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
