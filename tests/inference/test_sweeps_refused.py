"""What a sweep refuses, and what it records of its settings."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sweep_runs import CHOSEN, GRID, TARGET, numbers, run, start_of

from inference import open_sweep
from inference.storage import versions
from inference.sweeps.identity import _fingerprint
from mixture_models import InputError, TwoModeLearner, objectives


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rate": 0.2}, "learning_rate is 0.1 there and 0.2 here"),
        ({"seed": 5}, "seed is 4 there and 5 here"),
        ({"num_replicates": 4}, "num_replicates is 3 there and 4 here"),
        ({"grid": GRID | {"learning_rate": [0.02, 0.1, 0.4]}}, "values of learning_rate is"),
        ({"grid": {"learning_rate": [0.1]}}, "axes is"),
        ({"start": lambda target: start_of(target).replace(new_mean=1.0)}, "start.new_mean is"),
        ({"target": TARGET.replace(old_weight=0.3)}, "target.old_logit is"),
        ({"chosen": [objectives.sft(replay=0.2), objectives.sft()]}, "objectives is"),
        (
            {"chosen": [replace(objectives.sft(replay=0.3), name="sft:replay=0.2"), CHOSEN[1]]},
            "parts of the objectives",
        ),
        (
            {"chosen": [CHOSEN[0], replace(objectives.reverse_kl(estimator="pathwise"), name="reverse_kl")]},
            "parts of the objectives",
        ),
        ({"common_random_numbers": False}, "common_random_numbers is true there and false here"),
    ],
)
def test_a_sweep_of_other_settings_is_refused_and_kept(changes, sentence, whole, trained):
    before = numbers(whole)
    with pytest.raises(InputError, match="to be resumed; " + sentence.replace(".", r"\.")):
        run(whole, **changes)
    assert trained == []
    assert numbers(whole) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (objectives.oapl(group_size=2), objectives.oapl(group_size=4)),
        (objectives.oapl(group_size=4), objectives.oapl()),
        (objectives.oapl(beta1=0.5, beta2=0.5), objectives.oapl()),
        (objectives.reverse_kl(estimator="pathwise"), objectives.reverse_kl()),
        (objectives.sft(replay=0.2), objectives.sft(replay=0.3)),
        (objectives.sft(learner=TwoModeLearner(train_scales=True)), objectives.sft()),
        (objectives.sft(learner="single_mode"), objectives.sft()),
        (objectives.sdft(divergence="forward"), objectives.sdft()),
        (objectives.sdft(divergence=0.3), objectives.sdft(divergence=0.4)),
        (objectives.sdft(demonstrations=TARGET), objectives.sdft()),
        (objectives.sdft(demonstrations=TARGET), objectives.sdft(demonstrations=start_of(TARGET))),
        (objectives.ttt_discover(eta="adaptive"), objectives.ttt_discover()),
        (objectives.oapl(reward=lambda y: y[:, 0]), objectives.oapl(reward=lambda y: -y[:, 0])),
        (objectives.oapl(reward=lambda y: y[:, 0]), objectives.oapl(reward=lambda y: 2.0 * y[:, 0])),
    ],
)
def test_objectives_that_differ_in_any_part_have_fingerprints_that_differ(one, other):
    """Whatever they are called."""
    assert json.dumps(_fingerprint(one)) != json.dumps(_fingerprint(other))
    assert _fingerprint(one) == _fingerprint(replace(one, name="mine"))


@pytest.mark.slow
def test_the_identity_of_an_objective_is_the_same_in_another_process():
    code = (
        "import json; from inference.sweeps.identity import _fingerprint; "
        "from mixture_models import objectives; "
        "print(json.dumps([_fingerprint(objectives.parse(text)) for text in objectives.by_default()]))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [_fingerprint(objectives.parse(text)) for text in objectives.by_default()]
    assert json.loads(other.stdout) == here
    assert "0x" not in other.stdout


def test_a_sweep_of_another_version_is_refused(whole, monkeypatch):
    original = versions.version_of
    monkeypatch.setattr(versions, "version_of", lambda name: "9.9" if name == "jax" else original(name))
    with pytest.raises(InputError, match=r'version of jax is ".*" there and "9.9" here'):
        run(whole)


def test_what_is_no_sweep_is_refused(tmp_path):
    (tmp_path / "file.zarr").write_text("precious")
    with pytest.raises(InputError, match="must be the store of a sweep; it is a file"):
        run(tmp_path / "file.zarr")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(InputError, match="must be the store of a sweep; it is something else"):
        run(tmp_path / "folder.zarr")
    with pytest.raises(InputError, match=r"the suffix of a sweep's store must be one of \.zarr"):
        run(tmp_path / "store.nc")
    with pytest.raises(InputError, match="must lie in an existing folder"):
        run(tmp_path / "nowhere" / "store.zarr")
    with pytest.raises(InputError, match="must be the store of a sweep"):
        open_sweep(tmp_path / "none.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.zarr", "folder.zarr"]
    assert (tmp_path / "file.zarr").read_text() == "precious"


def test_too_little_memory_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"memory must be at least \d+ MiB, .*; got 1 MiB"):
        run(tmp_path / "store.zarr", memory=2**20)
    with pytest.raises(InputError, match="at most one of workers and scheduler; got both"):
        run(tmp_path / "store.zarr", workers=2, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="workers must be at least 1; got 0"):
        run(tmp_path / "store.zarr", workers=0)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_recorded_as_others_are(whole):
    tree = open_sweep(whole)
    assert tree.attrs["seed"] == 4
    stored = json.loads(tree.attrs["settings"])
    assert stored["grid"]["learning_rate"] == GRID["learning_rate"]
    assert stored["objectives"] == [objective.name for objective in CHOSEN]
    np.testing.assert_array_equal(tree["constant_data"]["target_new_mean"].squeeze(), [2.0, 3.5])
