from .run import sweep
from .store import open_sweep

__all__ = ["open_sweep", "sweep"]
