"""What tests of the measurement share."""

import pytest
from measurement_samples import QUIET, simulated

from inference import measure


@pytest.fixture(scope="module")
def data():
    """References 4 apart in 2 dimensions, and three checkpoints that lose the old mode and move it."""
    old, new = simulated(600, 1.0, [0, 0], [4, 0]), simulated(600, 0.0, [0, 0], [4, 0], seed=1)
    runs = [
        simulated(500, w, [d, 0], [4, 0.5], seed=2 + i)
        for i, (w, d) in enumerate([(0.9, 0), (0.5, 0.3), (0.2, 0.6)])
    ]
    return old, new, runs


@pytest.fixture(scope="module")
def tree(data):
    old, new, runs = data
    return measure(runs, old, new, num_log_likelihood_rows=50, num_draws=400, **QUIET)
