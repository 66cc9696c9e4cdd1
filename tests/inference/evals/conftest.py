"""What tests of evaluation logs share."""

import evals_logs as logs
import pytest


@pytest.fixture(scope="module")
def answers():
    """The answers of a base and of a run to multiple-choice items."""
    return logs.two_runs()
