"""Settings are stated once: the contract of every command's options, files, checks and help."""

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

import analyses
from analyses.core import settings
from analyses.registry import COMMANDS
from mixture_models import InputError

NAMED = {command.module: command for command in COMMANDS}

# What must be given, of nothing that is there.
NEEDED = {
    "sweep": {"grid": "nothing.toml"},
    "measure": {"run": "nothing.npz"},
    "evals": {"base": ["nothing"]},
    "measure_scores": {"files": ["nothing.csv"]},
    "compare_runs": {"folders": ["nothing", "nowhere"]},
}

# Each setting refuses some of these, and what it takes is of its type.
BAD = [object(), 3.5, -(10**24), np.nan, "[/red]", "a\nb", "\0", True, [], [np.nan], [-1, "x"], (3.0, 2.0)]


def settings_of(module):
    return getattr(analyses, module).Settings


ALL = [
    pytest.param(module, one, id=f"{module}-{one.name}")
    for module in NAMED
    for one in fields(settings_of(module))
]


@pytest.mark.parametrize(("module", "one"), ALL)
def test_a_bad_value_is_one_sentence_that_names_the_setting(module, one):
    said = []
    for value in BAD:
        try:
            settings_of(module)(**NEEDED.get(module, {}) | {one.name: value})
        except InputError as error:
            said.append(str(error))
    assert said
    assert all(one.name in sentence and len(sentence.splitlines()) == 1 for sentence in said)


@pytest.mark.parametrize(("module", "one"), ALL)
def test_every_setting_has_a_help_text_and_a_default_or_must_be_given(module, one):
    assert settings.facts(one).text.endswith(".")
    assert settings.is_required(one) == (one.name in NEEDED.get(module, {}))
    assert not isinstance(one.default, list)


@pytest.mark.parametrize("module", NAMED)
def test_a_file_restores_the_settings_that_it_was_written_from(module, tmp_path):
    given = settings_of(module)(**NEEDED.get(module, {}))
    given.write(tmp_path / "settings.toml")
    assert settings_of(module).read(tmp_path / "settings.toml") == given
    if "seed" in given.asdict():
        other = settings_of(module)(**NEEDED.get(module, {}), seed=3)
        other.write(tmp_path / "settings.toml")
        assert settings_of(module).read(tmp_path / "settings.toml") == other != given
        assert other.asdict()["seed"] == 3


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.module)
def test_help_shows_every_word(massdrift, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "160")
    code, printed, _ = massdrift(*command.name.split(), "--help")
    assert code == 0
    shown = " ".join(printed.replace("│", " ").split())
    for one in fields(settings_of(command.module)):
        facts = settings.facts(one)
        if facts.shown:
            assert facts.argument or f"--{settings.option(one).replace('_', '-')}" in shown
            assert all(word in shown for word in f"{facts.text} {facts.show or ''}".split())
            if facts.show is None and isinstance(one.default, float):
                assert str(one.default) in shown
        else:
            assert f"--{settings.option(one).replace('_', '-')} " not in shown
    assert all(f"--{name}" in shown for name in settings_of(command.module).presets)
    for option, there in (("config", command.draws), ("format", command.draws), ("quiet", True)):
        assert (f"--{option} " in shown) == there


# A command line that gives what must be given, and a bad value of one option.
REFUSED = {
    "compare": "--old-weight=nan",
    "sequence": "--separation=-1",
    "mass_forgetting": "--end-time=nan",
    "drift": "--seed=-1",
    "geometry": "--old-weight=nan",
    "replay": "--batch-size=-1000000000000000000000000",
    "near_on_policy": "--num-trained=14",
    "plan": "--keep=nan",
    "sweep": "--memory=-1 nothing.toml",
    "phase": "--batch-size=1",
    "chen2025": "--num-replicates=0",
    "measure": "--tails=heavy --old-reference=nothing.npz --new-reference=nothing.npz nothing.npz",
    "evals": "--method=magic nothing",
    "measure_scores": "--num-draws=0 nothing.csv",
    "plan_evals": "--width=nan",
    "plan_sequence": "--keep=nan",
    "compare_runs": "--gain=nan nothing nowhere",
    "digits": "--num-samples=10",
    "digits_sequence": "--num-samples=10",
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.module)
def test_the_command_refuses_before_it_computes_or_writes(massdrift, tmp_path, monkeypatch, command):
    """On the command line and in a file: what must be given may stand in either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(getattr(analyses, command.module), "run", lambda *a, **k: pytest.fail("computed"))
    out = ["--quiet", "--out", tmp_path / "deep" / "out.zarr"]

    def refused(*arguments):
        code, printed, error = massdrift(*command.name.split(), *arguments, *out)
        assert (code, printed, len(error.splitlines())) == (2, "", 1)
        return error

    bad, *needed = REFUSED[command.module].split()
    option = bad.removeprefix("--").partition("=")[0].replace("-", "_")
    assert refused(bad, *needed).startswith(f"massdrift: {option}")
    assert list(tmp_path.iterdir()) == []
    if command.draws:
        path = tmp_path / "settings.toml"
        settings.write(NEEDED.get(command.module, {}) | {option: ["nonsense"]}, path)
        assert refused("--config", path).startswith(f"massdrift: {option}")
        settings.write(NEEDED.get(command.module, {}) | {"nonsense": 1}, path)
        assert refused("--config", path).endswith("; got nonsense\n")
        assert list(tmp_path.iterdir()) == [path]


# Bounds, and what one setting makes of another.
SENTENCES = [
    ("compare", {"old_weight": 1.2}, "old_weight must lie in (0, 1); got 1.2"),
    ("compare", {"start_old_weight": 0}, "start_old_weight must lie in (0, 1); got 0"),
    ("compare", {"separation": -1}, "separation must be greater than 0; got -1"),
    ("compare", {"separation": np.nan}, "separation must be finite; got nan"),
    ("compare", {"num_steps": 0}, "num_steps must be at least 1; got 0"),
    ("compare", {"batch_size": -3}, "batch_size must be at least 1; got -3"),
    ("compare", {"learning_rate": 0}, "learning_rate must be greater than 0; got 0"),
    ("compare", {"learning_rate": "fast"}, "learning_rate must be a number; got 'fast'"),
    ("compare", {"precision": "half"}, "precision must be one of float64, float32; got 'half'"),
    ("compare", {"num_replicates": 0}, "num_replicates must be at least 1; got 0"),
    ("compare", {"seed": -1}, "seed must be at least 0; got -1"),
    ("compare", {"objectives": "sft"}, "objectives must be a list of texts; got 'sft'"),
    ("compare", {"common_random_numbers": "yes"}, "common_random_numbers must be true or false; got 'yes'"),
    (
        "mass_forgetting",
        {"separations": [3, 2]},
        "separations must be an increasing list of numbers; got [3. 2.]",
    ),
    ("mass_forgetting", {"separations": (0.0, 2.0)}, "separations must lie in [0.1, 12]; got 0"),
    ("mass_forgetting", {"start_old_weight": 1.0}, "start_old_weight must lie in (0, 1); got 1"),
    ("mass_forgetting", {"end_time": 0.5}, "end_time must lie in [1, 1e+09]; got 0.5"),
    ("mass_forgetting", {"num_times": 1}, "num_times must be at least 2; got 1"),
    ("drift", {"separations": (5.0, 20.0)}, "separations must lie in [1, 12]; got 20"),
    ("drift", {"old_weight": 0.0}, "old_weight must lie in (0, 1); got 0"),
    ("drift", {"fit_from": (11.0,)}, "a regression needs at least 4 separations; got 3 from 11 on"),
    ("drift", {"num_replicates": 0}, "num_replicates must be at least 1; got 0"),
    ("drift", {"num_draws": 0}, "num_draws must be at least 1; got 0"),
    ("drift", {"seed": -1}, "seed must be at least 0; got -1"),
    (
        "geometry",
        {"separations": (5.0, 4.0)},
        "separations must be an increasing list of numbers; got [5. 4.]",
    ),
    ("geometry", {"separations": (0.5,)}, "separations must lie in [1, 12]; got 0.5"),
    ("geometry", {"old_weights": (0.0, 0.5)}, "old_weights must lie in [0.02, 0.98]; got 0"),
    ("replay", {"replay": (0.5, 0.1)}, "replay must be an increasing list of numbers; got [0.5 0.1]"),
    ("replay", {"replay": (1.0,)}, "replay must lie in [0, 0.95]; got 1"),
    ("replay", {"start_old_weight": 0.0}, "start_old_weight must lie in (0, 1); got 0"),
    ("replay", {"batch_size": 1}, "batch_size must be at least 2; got 1"),
    ("replay", {"learning_rate": 0}, "learning_rate must be greater than 0; got 0"),
    ("replay", {"separation": -1.0}, "separation must be greater than 0; got -1"),
    ("near_on_policy", {"separation": 11}, "separation must lie in [1, 10]; got 11"),
    ("near_on_policy", {"old_weight": 1}, "old_weight must lie in (0, 1); got 1"),
    ("near_on_policy", {"start_old_weight": 0}, "start_old_weight must lie in (0, 1); got 0"),
    ("near_on_policy", {"start_new_gap": 4}, "start_new_gap must lie in [0, 3.6]; got 4"),
    ("near_on_policy", {"reward_gap": 6}, "reward_gap must lie in [-5, 5]; got 6"),
    ("near_on_policy", {"anchor": 1.5}, "anchor must lie in [0, 1]; got 1.5"),
    ("near_on_policy", {"ema": -1}, "ema must lie in [0, 1]; got -1"),
    ("near_on_policy", {"dimension": 0}, "dimension must be at least 1; got 0"),
    ("near_on_policy", {"num_steps": 5}, "num_steps must be at least 10; got 5"),
    ("near_on_policy", {"batch_size": 1}, "batch_size must be at least 2; got 1"),
    ("near_on_policy", {"learning_rate": 2}, "learning_rate must lie in [1e-06, 1]; got 2"),
    ("near_on_policy", {"num_points": 2}, "num_points must be at least 3; got 2"),
    ("near_on_policy", {"num_trained": 14}, "num_trained must be at most 13; got 14"),
    ("near_on_policy", {"num_replicates": 1}, "num_replicates must be at least 2; got 1"),
    ("near_on_policy", {"seed": -1}, "seed must be at least 0; got -1"),
    ("plan", {"separation": 0.0}, "separation must lie in [0.1, 26]: below, the modes are one; got 0"),
    (
        "plan",
        {"separation": 30.0},
        "separation must lie in [0.1, 26]: above, their overlap is smaller than a float, and drift and "
        "misassignment are 0; got 30",
    ),
    ("plan", {"start_old_weight": 1.0}, "start_old_weight must lie in (0, 1); got 1"),
    ("plan", {"old_weight": 0.0}, "old_weight must lie in (0, 1); got 0"),
    ("plan", {"objectives": ["sft", "sft"]}, "objectives must have different names; got sft, sft"),
    ("plan", {"batch_size": 1}, "batch_size must be at least 2; got 1"),
    ("phase", {"separations": [1.0, 2.0]}, "separations must lie in [1.5, 100]; got 1"),
    ("phase", {"separations": [3.0, 2.0]}, "separations must be an increasing list of numbers; got [3. 2.]"),
    ("phase", {"batch_sizes": [1, 2]}, "batch_sizes must be at least 2; got 1"),
    ("phase", {"batch_sizes": [4, 2]}, "batch_sizes must be an increasing list of numbers; got [4. 2.]"),
    ("phase", {"knobs": [0.0, 1.0]}, "knobs must lie in [0, 0.95]; got 1"),
    ("phase", {"start_new_gap": 2.0}, "start_new_gap must be less than every separation; got 2 and 1.5"),
    ("phase", {"start_old_weight": 0.0}, "start_old_weight must lie in (0, 1); got 0"),
    ("phase", {"num_replicates": 0}, "num_replicates must be at least 1; got 0"),
    ("measure", {"method": "magic"}, "method must be one of auto, laplace, nuts; got 'magic'"),
    ("evals", {"method": "magic"}, "method must be one of auto, laplace, nuts; got 'magic'"),
    ("evals", {"run": ["sft"]}, "a run must be given as NAME=PATH; got sft"),
    ("evals", {"column": ["item"]}, "a column must be given as NAME=COLUMN; got item"),
    ("plan_evals", {"width": 1, "power": 0.5}, "width or power must be wanted, not both; got 1.0 and 0.5"),
    ("plan_evals", {"answers": [2, 2]}, "answers must be different numbers; got 2, 2"),
    ("plan_evals", {"seeds": 3}, "seeds must come with seed_sd, their spread; got seeds 3 alone"),
    (
        "plan_evals",
        {"base": ["log"], "item_sd": 2},
        "item_sd must be given or read from the base's log, not both",
    ),
    ("plan_evals", {"task": "mmlu"}, "task and metric belong to a log of the base; there is none"),
    (
        "sequence",
        {"new_tasks": ["chat"]},
        "old_tasks and new_tasks must have different names; got chat, facts, safety, chat",
    ),
    ("sequence", {"old_tasks": []}, "old_tasks must be at least one; got none"),
    ("sequence", {"weights": [0.5, 0.5]}, "weights must be one a task, 5; got 2"),
    ("sequence", {"weights": [0.2] * 4 + [0.1]}, "weights must sum to 1; they sum to 0.9"),
    ("sequence", {"places": "circle"}, "places must be one of line, simplex; got 'circle'"),
    (
        "plan_sequence",
        {"start_new_weight": 0.5},
        "start_new_weight times the number of new_tasks must be below 1, as the old tasks hold the rest; "
        "got 0.5 times 2",
    ),
    ("digits", {"num_seeds": 0}, "num_seeds must be at least 1; got 0"),
    ("digits", {"num_samples": 10}, "num_samples must be at least 50; got 10"),
    ("digits", {"num_heads": 3}, "num_heads must divide the width of 32; got 3"),
    ("digits_sequence", {"tasks": ["0-9"]}, "tasks must be 3 to 4 groups of digits; got 1"),
    (
        "digits_sequence",
        {"tasks": ["0-3", "3-6", "7-9"]},
        "tasks must be groups that share no digit; 3 is in several",
    ),
    (
        "digits_sequence",
        {"tasks": ["0-3", "4-6", ""]},
        "tasks must be groups of digits from 0 to 9, as 0-3 or 1,5,7; got ''",
    ),
    (
        "digits_sequence",
        {"tasks": ["0-3", "4-6", "10"]},
        "tasks must be groups of digits from 0 to 9, as 0-3 or 1,5,7; got '10'",
    ),
    (
        "digits_sequence",
        {"start_new_weight": 0.5},
        "start_new_weight times the number of later tasks must be below 1, as the first holds the rest; got "
        "0.5 times 2",
    ),
    ("digits", {"steps": [1, 2]}, "steps must be increasing and begin with 0; got 1, 2"),
]


@pytest.mark.parametrize(("module", "given", "sentence"), SENTENCES)
def test_a_bound_is_said(module, given, sentence):
    with pytest.raises(InputError) as refused:
        settings_of(module)(**NEEDED.get(module, {}) | given)
    assert str(refused.value) == sentence


def test_values_are_those_of_the_checks():
    made = analyses.drift.Settings(separations=np.arange(4.0, 9.0), fit_from=[4], seed=2.0)
    assert made.separations == (4.0, 5.0, 6.0, 7.0, 8.0)
    assert (made.seed, type(made.seed)) == (2, int)
    assert analyses.digits.Settings.quick(num_seeds=5).steps == (0, 10, 40)
    assert analyses.compare.Settings().objectives[0] == "sft"


def test_a_preset_loses_against_a_file_and_a_file_against_an_option(massdrift, tmp_path, monkeypatch):
    (tmp_path / "settings.toml").write_text("num_items = 3\nnum_seeds = 4\n")
    seen = []

    def run(given, **places):
        seen.append(given)
        raise InputError("seen")

    monkeypatch.setattr(analyses.digits, "run", run)
    options = ["--quick", "--config", tmp_path / "settings.toml", "--seed=7", "--num-seeds=5"]
    massdrift("digits", *options, "--out", tmp_path / "out")
    quick = dict(analyses.digits.Settings.presets["quick"].defaults)
    assert seen == [analyses.digits.Settings(**quick | {"num_items": 3, "num_seeds": 5, "seed": 7})]


HEAVY = ("jax", "numpyro", "arviz", "xarray", "pandas", "matplotlib", "scipy", "sklearn", "numpy")


@pytest.mark.parametrize("arguments", [["--help"], ["reproduce", "--help"], ["--version"]])
def test_the_list_of_commands_imports_nothing_heavy(arguments):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['massdrift', *{arguments}]\n"
        "try:\n"
        "    runpy.run_module('massdrift', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        f"    print('LOADED', stop.code, [name for name in {HEAVY} if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "LOADED 0 []" in ran.stdout
