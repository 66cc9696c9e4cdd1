"""`massdrift digits-sequence`: tasks of digits, the chain of stages, the count of several, and the order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from small_runs import SMALL_DIGITS

from analyses.digits import data, judges
from analyses.digits.choices import choices
from analyses.digits.objectives import params_of
from analyses.digits.store import Store
from analyses.digits.transformer import Transformer
from analyses.digits_sequence import digits_sequence, layout, objectives, prediction
from analyses.digits_sequence.settings import Settings, digits_of
from analyses.digits_sequence.tasks import GroupsTask
from mixture_models import Mixture, rewards, theory

GROUPS = {"0-3": (0, 1, 2, 3), "4-6": (4, 5, 6), "7-9": (7, 8, 9)}
DIGITS = data.load(num_levels=5, seed=0)


def test_groups_are_read():
    assert digits_of("0-3") == (0, 1, 2, 3)
    assert digits_of("7") == (7,)
    assert digits_of("1, 5,7-9") == (1, 5, 7, 8, 9)
    assert Settings(tasks=["4-6", "0", "1,9"]).groups == {"4-6": (4, 5, 6), "0": (0,), "1,9": (1, 9)}


@pytest.fixture(scope="module")
def task():
    network = Transformer(64, 5, width=4, num_blocks=1, num_heads=1, key=jax.random.key(0))
    verifier = judges.perceptron(DIGITS.judges, 5, jax.random.key(0))
    return GroupsTask.create(GROUPS, DIGITS.networks, (0.8, 0.15, 0.05), network, verifier)


@pytest.mark.slow
def test_tasks_hold_their_images_by_their_shares(task):
    images = [DIGITS.networks.of(digits).pixels for digits in GROUPS.values()]
    assert sum(map(len, images)) == len(DIGITS.networks.digits)
    for law, shares in (
        (task.law(), (0.8, 0.15, 0.05)),
        (task.law_of({"7-9": 0.3, "0-3": 0.7}), (0.7, 0.0, 0.3)),
        (task.mode_law("4-6"), (0.0, 1.0, 0.0)),
    ):
        # The last image is in its task once, and so it holds the share over the number of images.
        found = jnp.exp(law.log_prob(jnp.stack([own[-1] for own in images])))
        expected = [share / len(own) for share, own in zip(shares, images, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_what_is_new_earns_one_and_all_else_nothing(task):
    reward = rewards.task_reward({"4-6": 1.0})
    for name, digits in GROUPS.items():
        earned = reward(jnp.asarray(DIGITS.networks.of(digits).pixels), task, None)
        assert abs(float(earned.mean()) - (name == "4-6")) < 0.06
    every = task.posterior(jnp.asarray(DIGITS.networks.pixels))
    np.testing.assert_allclose(sum(every), 1.0, rtol=1e-5)


def test_a_count_of_three_allows_for_the_errors_of_the_classifier():
    rates = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]])
    shares = np.array([0.6, 0.1, 0.3])
    num = 100_000
    count = judges.Count(np.round(num * shares @ rates).astype(int), np.round(num * rates).astype(int))
    draws = count.draws(4000, np.random.default_rng(0))
    # Read by columns in the place of rows it is off by 0.04 and more.
    np.testing.assert_allclose(draws.mean(axis=0), shares, atol=0.003)
    np.testing.assert_allclose(draws.sum(axis=1), 1.0, rtol=1e-12)
    # Of classes that are told apart without error the law is Dirichlet's.
    sure = judges.Count(np.array([60, 10, 30]), num * num * np.eye(3, dtype=int)).draws(
        40_000, np.random.default_rng(0)
    )
    alpha = np.array([61.0, 11.0, 31.0])
    mean = alpha / alpha.sum()
    spread = np.sqrt(mean * (1.0 - mean) / (alpha.sum() + 1.0))
    np.testing.assert_allclose(sure.mean(axis=0), mean, atol=5 * spread.max() / np.sqrt(40_000))
    np.testing.assert_allclose(sure.std(axis=0), spread, rtol=0.03)


def test_a_panel_counts_real_digits_of_three_tasks():
    panel = judges.Panel(DIGITS.judges, DIGITS.networks, 5, 0, GROUPS)
    parts = [
        DIGITS.networks.of(own).pixels[:num] for own, num in zip(GROUPS.values(), (300, 60, 140), strict=True)
    ]
    draws = judges.panel_draws(panel.count(np.concatenate(parts)), 900, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(axis=1), np.tile([0.6, 0.12, 0.28], (3, 1)), atol=0.02)


def test_stages_begin_where_the_one_before_ended(task, tmp_path, monkeypatch):
    settings = Settings(steps=(0, 1, 2), num_seeds=1)
    seen = []

    def post_trained(objective, starts, targets, steps, *, settings, key, sample_key, bar):
        seen.append((objective.name, *(float(one.network.head.bias[0, 0]) for one in (starts, targets))))
        begins = params_of(starts.network)
        # What is trained adds one in two steps, with replay two, and draws images that tell its number.
        step = 1.0 if "replay" in objective.name else 0.5
        return {"samples": np.full((3, 1, 1, 1), len(seen))} | {
            f"param.{name}": np.stack([np.asarray(value) + step * place for place in range(3)])
            for name, value in begins.items()
        }

    monkeypatch.setattr(digits_sequence, "post_trained", post_trained)
    bare = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape)), task.network)
    store = Store(tmp_path / "run", settings)
    start = task.begun_at(bare)
    bar = type("Bar", (), {"set_description": lambda self, words: None})()
    arrays = digits_sequence._trained(
        settings, store, start, partial(jax.random.fold_in, jax.random.key(0)), bar
    )
    by_name = {
        name: seen[2 * index : 2 * index + 2] for index, name in enumerate(objectives.names_of(settings))
    }
    for name, stages in by_name.items():
        assert [begins for _, begins, _ in stages] == [0.0, 2.0 if name == "sft_replay" else 1.0]
        # Only what is demonstrated is pulled by another network: that of the replay at the end of the stage.
        shown = [2.0, 4.0] if name == "sdft" else [begins for _, begins, _ in stages]
        assert [target for _, _, target in stages] == shown
    images = digits_sequence.images_of(settings, arrays, 0)
    assert list(images)[:5] == ["start", "sft/1", "sft/2", "sft/3", "sft/4"]
    assert [int(images[f"oapl/{step}"][0, 0]) for step in (1, 2, 3, 4)] == [11, 11, 12, 12]
    assert set(layout.ends_of(settings)) == {"start", *(f"{n}/{s}" for n in by_name for s in (2, 4))}


def test_the_objectives_are_those_of_two_tasks_in_their_order():
    """Random numbers are folded with an objective's place: in another order every number is another."""
    settings = Settings()
    names = ("sft", "sft_replay", "rl", "sdft", "ttt_discover", "oapl")
    assert tuple(choices(settings, replay=0.5, num_steps=60)) == objectives.names_of(settings) == names


def test_the_mixture_is_trained_on_what_networks_are():
    settings = Settings(kl_weight=0.5, replay=0.4)
    right = Mixture.create({"0-3": [0.0], "4-6": [7.0], "7-9": [14.0]})
    begins = right.replace(weights={"0-3": 0.5, "4-6": 0.3, "7-9": 0.2})
    chosen = objectives.choices_of(settings)
    made = partial(
        objectives.of_mixture, settings, task="7-9", begins=begins, right=right, demonstrations=begins
    )
    tilted = np.array([0.5, 0.3, 0.2 * np.exp(2.0)])
    np.testing.assert_allclose(made(choice=chosen["rl"]).target.weights, tilted / tilted.sum(), rtol=1e-12)
    replayed = made(choice=chosen["sft_replay"])
    data_law = replayed.objective.model.args[0]
    assert {name: round(share, 12) for name, share in data_law.items()} == {
        "7-9": 0.6,
        "0-3": 0.2,
        "4-6": 0.2,
    }
    assert objectives.of_networks(settings, chosen["sft_replay"], "7-9").model.args[0] == data_law
    assert made(choice=chosen["sdft"]).target is begins
    assert made(choice=chosen["oapl"]).target is right


def test_modes_lie_as_the_references_do():
    rng = np.random.default_rng(0)
    means = {"a": [0.0, 0.0, 0.0], "b": [4.0, 0.0, 0.0], "c": [0.0, 3.0, 0.0]}
    scale = np.array([1.0, 1.0, 5.0])
    references = {name: mean + scale * rng.standard_normal((4000, 3)) for name, mean in means.items()}
    found = prediction.fitted(references, [0.5, 0.25, 0.25])
    assert found.dim == 2
    np.testing.assert_allclose(found.separations[0, 1:], [4.0, 3.0], rtol=0.03)
    np.testing.assert_allclose(found.weights, [0.5, 0.25, 0.25])


@pytest.mark.slow
def test_the_pace_is_found_and_the_course_is_that_of_separated_modes():
    settings = Settings(steps=(0, 10, 30))
    right = Mixture.create({"0-3": [0.0], "4-6": [12.0], "7-9": [24.0]}, {"0-3": 0.8, "4-6": 0.1, "7-9": 0.1})
    pace = 0.17
    exact = theory.sft_sequence_weights_separated([0.8, 0.1, 0.1], [(1, 30 * pace), (2, 30 * pace)])
    first = [theory.sft_sequence_weights_separated([0.8, 0.1, 0.1], [(1, s * pace)])[-1, 1] for s in (10, 30)]
    sft = objectives.choices_of(settings)["sft"]
    course = prediction.course_of(settings, sft, right, np.array([0.1, *first]), [right] * 3)
    assert float(course["pace"]) == pytest.approx(pace, rel=0.02)
    at = np.searchsorted(course["steps"], [0.0, 30.0 - 1e-6, 60.0 - 1e-6])
    np.testing.assert_allclose(course["shares"][at], exact, atol=0.01)
    ends = prediction.mixtures_of(course, right)
    np.testing.assert_allclose([one.weights for one in ends], exact, atol=0.01)


def tree_of(changes, predicted, held):
    """Return what `order` reads: log changes (source, objective, draw, stage, task)."""
    tasks, names = list(GROUPS), ["sft"]
    axes = {"source": list(layout.SOURCES), "objective": names, "chain": [0], "draw": range(4)}
    stages = {"stage": [1, 2], "task": tasks}
    dims = ("source", "objective", "chain", "draw", "stage", "task")
    own = xr.DataArray([0, 1, 2], {"task": tasks}, "task")
    change = xr.DataArray(np.broadcast_to(changes, (3, 1, 1, 4, 2, 3)), axes | stages, dims)
    weight = xr.DataArray(
        np.broadcast_to(held, (3, 1, 1, 4, 3, 3)), axes | {"stage": [0, 1, 2], "task": tasks}, dims
    )
    order = xr.Dataset(
        {
            "log_change": change,
            "predicted_log_change": (("objective", "stage", "task"), predicted[None]),
            "is_taught": own == change["stage"],
        }
    )
    return xr.DataTree.from_dict({"/order": order, "/stages": xr.Dataset({"weight": weight})})


def test_the_larger_task_stands_first_and_below_zero_is_lost_first():
    changes = np.zeros((4, 2, 3))
    # In the first stage 0-3 loses more in three of four draws; in the second 4-6, which holds more then.
    changes[:, 0, 0], changes[3, 0, 2] = -1.0, -2.0
    changes[:, 1, 1] = -3.0
    predicted = np.array([[-2.0, 1.0, -0.5], [-0.5, -0.51, 2.0]])
    held = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]])
    frame = layout.order(tree_of(changes, predicted, held)).set_index(["source", "stage"])
    first, second = frame.loc[(layout.COUNT, 1)], frame.loc[(layout.COUNT, 2)]
    assert (first["first"], first["second"]) == ("0-3", "7-9")
    assert first["predicted"] == pytest.approx(-1.5)
    assert first["found"] == pytest.approx(-0.5)
    assert first["probability"] == 0.75
    assert (second["first"], second["second"]) == ("4-6", "0-3")
    assert second["found"] == pytest.approx(-3.0)
    assert first["is_order"]
    assert not second["is_order"]  # too near to tell


TINY = SMALL_DIGITS | {"pretraining_steps": 40, "lag": 1}


@pytest.mark.slow
def test_a_run_writes_every_stage_task_and_source_and_goes_on(massdrift, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    Settings(**TINY).write(tmp_path / "settings.toml")
    out = tmp_path / "run"
    given = ["digits-sequence", "--config", tmp_path / "settings.toml", "--quiet", "--out", out]
    code, printed, error = massdrift(*given)
    assert code == 0, error
    assert "…" not in printed
    assert "The mixture predicts which of two tasks" in printed
    wanted = {"results.zarr", "summary.csv", "report.html", "shares.png", "performance.png", "order.png"}
    assert wanted <= {path.name for path in out.iterdir()}
    tree = layout.results.open(out / "results.zarr")
    weight = tree["stages"]["weight"]
    assert dict(weight.sizes) == {
        "source": 3,
        "objective": 6,
        "chain": 1,
        "draw": 2000,
        "stage": 3,
        "task": 3,
    }
    np.testing.assert_allclose(weight.sum("task"), 1.0, rtol=1e-6)
    # One start for all objectives, and the count at the ends is that over the stages.
    start = weight.isel(stage=0)
    xr.testing.assert_equal(start.isel(objective=0, drop=True), start.isel(objective=5, drop=True))
    counted = tree["trajectory"]["counted_weight"].sel(step=[0, 2, 4]).to_numpy()
    np.testing.assert_array_equal(counted, weight.sel(source=layout.COUNT).to_numpy())
    # Nothing is trained, measured or followed again.
    for name in ("post_trained", "measured_images", "measured"):
        monkeypatch.setattr(digits_sequence, name, lambda *a, **k: pytest.fail("again"))
    monkeypatch.setattr(prediction, "course_of", lambda *a, **k: pytest.fail("again"))
    code, again, error = massdrift(*given)
    assert (code, again) == (0, printed), error
