"""A measurement of logs that is stopped keeps the tasks that it has finished, and goes on from them."""

import numpy as np
import pandas as pd
import pytest
from test_evals_cli import run

import inference
from inference.measurement.evals import fast, task_results
from inference.storage import kept


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Answers of two tasks with repeats and one of choices, in a file."""
    rng, rows = np.random.default_rng(0), []
    for task, repeats in (("one", 2), ("two", 2), ("chosen", 1)):
        ability = 2.0 * rng.normal(size=60)
        for arm in ("base", "a", "b"):
            for item, a in enumerate(ability):
                for sample in range(repeats):
                    right = rng.uniform() < 1.0 / (1.0 + np.exp(-a))
                    choice = "A" if right else "B"
                    rows.append((arm, task, item, sample, float(right), choice, "A", 4))
    names = ["arm", "task", "item", "sample", "score", "choice", "answer", "num_choices"]
    path = tmp_path_factory.mktemp("logs") / "answers.csv"
    pd.DataFrame(rows, columns=names).to_csv(path, index=False)
    return path


class Counted:
    """Calls of a function, which stops the command at one of them."""

    def __init__(self, function, stop_at=None):
        self.function, self.stop_at, self.num = function, stop_at, 0

    def __call__(self, *arguments):
        """Count the call, and stop or compute."""
        self.num += 1
        if self.num == self.stop_at:
            raise KeyboardInterrupt
        return self.function(*arguments)


@pytest.mark.slow
def test_a_command_that_is_stopped_goes_on_from_the_tasks_it_has_finished(
    table, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    draw, learn, choices = fast.draw, fast.learn, task_results.draw_choices
    monkeypatch.setattr(fast, "draw", Counted(draw, stop_at=2))
    assert run(monkeypatch, table, "--out", out, "--quiet") == 130
    assert "what was finished is kept in" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
    for module, name, function in (
        (fast, "draw", draw),
        (fast, "learn", learn),
        (task_results, "draw_choices", choices),
    ):
        monkeypatch.setattr(module, name, Counted(function))
    assert run(monkeypatch, table, "--out", out, "--quiet") == 0
    assert (fast.draw.num, fast.learn.num, task_results.draw_choices.num) == (1, 0, 1)
    # Nothing is kept of what is written, and numbers are those of a command that was not stopped.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    monkeypatch.undo()
    whole = inference.measure_evals(table, progress=False)
    again = inference.open(out / "results.zarr")
    for name in whole["posterior"].data_vars:
        np.testing.assert_array_equal(again["posterior"][name], whole["posterior"][name], err_msg=name)
    assert (again["sample_stats"]["words"] == whole["sample_stats"]["words"]).all()


@pytest.mark.slow
def test_another_seed_or_method_is_computed_anew(table, tmp_path, monkeypatch):
    settings = {"progress": False, "method": "laplace"}
    with kept.keeping(tmp_path):
        inference.measure_evals(table, **settings)
        monkeypatch.setattr(fast, "draw", Counted(fast.draw))
        inference.measure_evals(table, **settings)
        assert fast.draw.num == 0
        inference.measure_evals(table, **settings, seed=1)
        assert fast.draw.num == 2
        inference.measure_evals(table, progress=False, method="auto")
        assert fast.draw.num == 4
