"""What tests of sweeps share."""

import shutil

import pytest
from sweep_runs import run

from inference.sweeps import run as engine


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """An uninterrupted sweep, of ten chunks."""
    store = tmp_path_factory.mktemp("sweep") / "whole.zarr"
    run(store)
    return store


@pytest.fixture
def copy(whole, tmp_path):
    """A finished sweep of one's own."""
    shutil.copytree(whole, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


@pytest.fixture
def trained(monkeypatch):
    """The blocks that were trained since, in their order."""
    seen, original = [], engine.train_block

    def train_block(grid, cut, block, report, folder):
        seen.append(block)
        return original(grid, cut, block, report, folder)

    monkeypatch.setattr(engine, "train_block", train_block)
    return seen
