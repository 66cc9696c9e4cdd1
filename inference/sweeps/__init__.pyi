from .run import sweep as sweep
from .store import open_sweep as open_sweep
