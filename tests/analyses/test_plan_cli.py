"""`massdrift plan`: from samples, with checks, in one sentence, and quickly."""

import subprocess
import sys

import numpy as np
import pytest

import inference
from mixture_models import objectives


def samples(num, mean, seed):
    """Return samples with correlated features, whose modes at 0 and at (3, 0, 0) are 3.7 apart."""
    scale = np.linalg.cholesky([[1.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.0]])
    return np.random.default_rng(seed).normal(size=(num, 3)) @ scale.T + [mean, 0.0, 0.0]


def test_a_plan_from_samples(tmp_path, massdrift):
    for name, rows in {
        "old": samples(400, 0.0, 0),
        "new": samples(300, 3.0, 1),
        "now": np.concatenate([samples(160, 0.0, 2), samples(40, 3.0, 3)]),
    }.items():
        np.save(tmp_path / f"{name}.npy", rows)
    given = [f"--{who}-samples={tmp_path / name}.npy" for who, name in (("old", "old"), ("new", "new"))]
    given += [f"--learner-samples={tmp_path / 'now.npy'}", "--num-steps=100", "--quiet"]
    code, printed, _ = massdrift("plan", "sft", "reverse_kl", *given, "--out", tmp_path / "out")
    assert code == 0
    said = " ".join(printed.split())
    assert "Estimated from 400 old and 300 new samples in 3 features: separation 3." in said
    assert "200 samples of the learner" in said
    tree = inference.open(tmp_path / "out" / "results.zarr")
    estimated = tree["estimated"].to_dataset()
    correlated = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.0]])
    truth = np.sqrt(9.0 * np.linalg.inv(correlated)[0, 0])
    low, high = estimated["separation_interval"].to_numpy()
    assert low - 0.2 < truth < high + 0.2  # its coverage is tested in test_separation.py
    assert float(estimated["separation"]) < float(estimated["plug_in_separation"])
    np.testing.assert_allclose(estimated["covariance"], correlated, atol=0.15)
    assert float(estimated["start_old_weight"]) == pytest.approx(0.8, abs=0.1)
    planned = tree["plan"].to_dataset().sel(objective="sft")
    assert planned["final_old_weight_lower"] < planned["final_old_weight"] < planned["final_old_weight_upper"]
    assert all({"long_name", "units"} <= set(v.attrs) for v in estimated.variables.values())


def test_the_command_plans_and_checks(massdrift):
    arguments = ["sft", "--separation=5", "--num-steps=20", "--batch-size=16", "--quiet"]
    code, printed, _ = massdrift("plan", *arguments, "--keep=0.95", "--check", "--full")
    assert code == 0
    assert "retain 0.95 of it" in printed
    assert "replay 0.5" in printed
    assert "Trained: mean and " in " ".join(printed.split())
    assert "nan" not in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--keep=2"], "keep must lie in (0, 1.42857); got 2"),
        (["dpo"], f"objective must be one of {', '.join(objectives.registry)}; got 'dpo'"),
        (["--old-samples=here.npy"], "needs those of the old and of the new task; got one of them"),
        (["--old-samples=no.npy", "--new-samples=no.npy"], "no.npy"),
    ],
)
def test_bad_input_of_the_command_is_one_sentence(massdrift, tmp_path, arguments, sentence):
    code, printed, error = massdrift("plan", *arguments, "--quiet", "--out", tmp_path / "out")
    assert code == 2
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_plan_loads_only_what_it_needs():
    program = (
        "import sys\n"
        "from analyses import cli\n"
        "light = [name for name in ('pandas', 'xarray') if name in sys.modules]\n"
        "sys.argv = ['massdrift', 'plan', 'sft', '--num-steps=20', '--quiet']\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit:\n"
        "    heavy = ('matplotlib', 'diffrax', 'arviz', 'arviz_stats', 'optax', 'sklearn', 'zarr')\n"
        "    print('LOADED', light, [name for name in heavy if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "LOADED [] []" in ran.stdout
