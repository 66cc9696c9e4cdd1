"""`massdrift sweep`: a file of settings becomes a store, which the same command resumes."""

import re
import sys

import numpy as np
import pytest
from sweep_runs import CHOSEN, SETTINGS

from analyses import cli
from inference import open_sweep, train
from inference.sweeps.store import SweepStore
from mixture_models import TwoMode

TOML = """
objectives = ["sft:replay=0.2", "reverse_kl"]
dimension = 1
num_steps = 9
batch_size = 8
num_replicates = 3
start_new_gap = 0.7
[grid]
start.old_weight = [0.2, 0.8]
"target.separation" = {first = 2.0, last = 8.0, count = 3, spacing = "log"}
"""


@pytest.fixture
def massdrift(monkeypatch, capsys, tmp_path):
    """Write a file, run the command on it, and return its exit code, output and error output."""

    def run(text, *arguments):
        file = tmp_path / "grid.toml"
        file.write_text(text)
        monkeypatch.setattr(sys, "argv", ["massdrift", "sweep", str(file), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


def test_the_command_writes_a_store_and_resumes_it(massdrift, tmp_path, trained):
    store = tmp_path / "deep" / "mine.zarr"
    code, printed, words = massdrift(TOML, "--out", store)
    assert code == 0
    assert "retention" in printed
    assert "nan" not in printed.lower()
    assert re.search(r"at most \d+ MiB of memory in this process", words)
    tree = open_sweep(store)
    np.testing.assert_allclose(tree["final"]["target.separation"], [2.0, 4.0, 8.0])
    target = TwoMode.create(0.5, 0.0, 4.0)
    start = target.replace(old_weight=0.2, new_mean=3.3)
    settings = SETTINGS | {"seed": 0, "learning_rate": 0.05, "record_every": 3, "progress": False}
    single = train(CHOSEN, start, target, **settings)["final"].to_dataset()
    swept = tree["final"].to_dataset().sel({"start.old_weight": 0.2}).isel({"target.separation": 1})
    for name in single:
        np.testing.assert_allclose(swept[name], single[name], rtol=0.0, atol=1e-10)
    trained.clear()
    assert massdrift(TOML, "--out", store, "--quiet")[0] == 0
    assert trained == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("num_steps = ", "must be readable TOML"),
        ("temperature = 3", "may set objectives, .*, grid, learning_rate_factors; got temperature"),
        ("grid = 3", "grid must be a table; got 3"),
        (
            "[grid]\nlearning_rate = {count = 3}",
            "learning_rate must be a list, or have first, last, count and perhaps spacing",
        ),
        (
            "[grid]\nlearning_rate = {first = 0, last = 1, count = 3, spacing = 'log'}",
            "the first value of learning_rate must be greater than 0; got 0",
        ),
        (
            "[grid]\nlearning_rate = {first = 0.1, last = 1, count = 3, spacing = 'cubic'}",
            "the spacing of learning_rate must be one of linear, log; got 'cubic'",
        ),
        ("[grid]\ntarget.colour = [1]", "the field of target.colour must be one of"),
        ("[learning_rate_factors]\nnothing = 1.0", "learning_rate_factors must name params of the learner"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_and_code_2(text, sentence, massdrift, tmp_path):
    code, printed, words = massdrift(text, "--out", tmp_path / "store.zarr")
    assert (code, printed) == (2, "")
    assert re.fullmatch(f"massdrift: .*{sentence}.*\n", words)
    assert not (tmp_path / "store.zarr").exists()


def test_a_full_disk_is_one_sentence_and_the_command_goes_on_later(massdrift, tmp_path, monkeypatch):
    def full_disk(self, grid, block, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(SweepStore, "write", full_disk)
        code, _, words = massdrift(TOML, "--out", tmp_path / "full.zarr", "--quiet")
    assert code == 1
    assert words == "massdrift: stopped: No space left on device; nothing was finished yet\n"
    assert massdrift(TOML, "--out", tmp_path / "full.zarr", "--quiet")[0] == 0
