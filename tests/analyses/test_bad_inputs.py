"""Bad input to commands and public functions: one sentence, before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from rich.console import Console

import analyses
import inference
from analyses import compare_runs
from analyses.core import figures, outputs, tables
from inference.engine import memory
from inference.training import loop, replicates
from mixture_models import InputError, TwoMode, objectives

TARGET = TwoMode.create(0.4, 0.0, 3.0)
START = TARGET.replace(old_weight=0.8, new_mean=2.0)
TRAINING = {
    "num_steps": 2, "batch_size": 4, "learning_rate": 0.1, "num_replicates": 2, "seed": 0, "progress": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 10**11}, "batch_size times dimension must be at most 4294967295"),
        ({"num_replicates": 10**13}, "what is recorded must fit into memory"),
        ({"num_steps": 2 * 10**9, "num_replicates": 10**6}, "what is recorded must fit into memory"),
        ({"optimizer": "adam"}, "optax.GradientTransformation"),
        ({"optimizer": optax.adam}, "optax.GradientTransformation"),
    ],
)
def test_a_training_that_cannot_be_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        inference.train(objectives.sft(), START, TARGET, **TRAINING | change)


def test_batches_beyond_the_memory_are_refused_by_what_their_program_needs(monkeypatch):
    arguments = TRAINING | {"batch_size": 2**16}
    monkeypatch.setattr(memory, "free", lambda: 2e6)
    with pytest.raises(InputError, match="batches take at once must fit into memory"):
        inference.train(objectives.sft(), START, TARGET, **arguments)
    del arguments["num_steps"]
    stages = [inference.Stage("new", objectives.sft(), TARGET, 2)]
    with pytest.raises(InputError, match="batches take at once must fit into memory"):
        inference.train_sequence(stages, START, **arguments)


@pytest.mark.slow
def test_the_estimate_that_spares_a_second_compilation_is_no_smaller():
    program = loop.training_program(objectives.oapl(), 2**12, None, {})
    with loop.arithmetic():
        keys = jax.vmap(lambda i: jax.random.key(i, impl="threefry2x32"))(jnp.arange(8))
        setting = jax.tree.map(jnp.asarray, (START, TARGET))
        schedule = replicates.schedule_of(np.arange(3), 2**15)
        batched = replicates.Batched(program)
        needed = replicates.bytes_of_call(batched, keys, setting, jnp.asarray(0.1), schedule)
    assert 4.0 * 8 * 2**12 < needed < replicates._BYTES_A_NUMBER * 8 * 2**12


@pytest.mark.slow
def test_records_further_apart_than_the_training_is_long_are_its_ends():
    # Of the shapes with which other tests train, for what they have compiled.
    target = TwoMode.create(0.4, [0.0, 0.0], [3.0, 0.0])
    settings = TRAINING | {"batch_size": 8, "num_replicates": 4, "record_every": 10**20}
    tree = inference.train(objectives.sft(), target, target, **settings)
    assert tree["trajectory"]["step"].values.tolist() == [0, 2]


def test_a_sweep_that_cannot_be_listed_or_stored_is_refused(tmp_path):
    def run(**change):
        arguments = TRAINING | change
        inference.sweep(
            objectives.sft(),
            {"learning_rate": [0.1]},
            start=START,
            target=TARGET,
            store=tmp_path / "x.zarr",
            **arguments,
        )

    with pytest.raises(InputError, match="the list of chunks must fit into memory"):
        run(num_replicates=10**15)
    with pytest.raises(InputError, match="a sweep must fit on the disk"):
        run(num_steps=2 * 10**9, record_every=1, num_replicates=10**6)


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        (lambda y: np.asarray(y)[:, 0], "functions that JAX can trace"),
        (lambda y: y[:, 0] if y[0, 0] > 0 else y.sum(1), "functions that JAX can trace"),
        (lambda y: jnp.nan * y[:, 0], "finite where the learner starts; that of .* is nan"),
        (lambda y: jnp.log(y[:, 0]), "finite where the learner starts"),
        (lambda y: y[:, 0] + 1j, "real numbers"),
        (lambda y: None, "must return numbers; got None"),
        (lambda y: "a", "must return numbers; got 'a'"),
        (int, "must be a function of"),
    ],
)
@pytest.mark.parametrize("objective", [objectives.ttt_discover, objectives.oapl])
def test_a_reward_that_cannot_be_trained_with_is_refused(objective, reward, sentence):
    with pytest.raises(InputError, match=sentence):
        inference.train(objective(reward=reward), START, TARGET, **TRAINING)


ANYTHING = [None, 3, 1.5, "x", b"x", [], [-1], {}, {"a": 1, "b": 2}, object(), np.zeros(3), np.sum]


@pytest.mark.parametrize(
    "call",
    [
        objectives.parse,
        inference.compare_runs,
        lambda value: inference.save(value, "x.zarr"),
        lambda value: inference.save(xr.DataTree(), value),
        inference.open,
        inference.open_sweep,
        lambda value: inference.population(value, START, TARGET),
        lambda value: inference.population(objectives.sft(), value, TARGET),
        lambda value: inference.measure(value, value, value, progress=False),
        lambda value: inference.estimate_setting(value, value),
        lambda value: inference.train(value, START, TARGET, **TRAINING),
        lambda value: inference.train(objectives.sft(), START, value, **TRAINING),
        lambda value: inference.gradient_flow(objectives.sft(), START, TARGET, times=value),
    ],
)
@pytest.mark.parametrize("value", ANYTHING, ids=lambda value: f"{type(value).__name__}-{value}"[:20])
def test_anything_is_refused_in_one_sentence(call, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        call(value)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_to_keep_checkpoints_in_is_no_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    samples = np.random.default_rng(0).normal(size=(30, 1))
    for keep in (tmp_path / "file", tmp_path / "file" / "in"):
        with pytest.raises(InputError, match=r"keep must be a folder; .*file is a file"):
            inference.measure(samples, samples + 1.0, samples + 3.0, keep=keep, progress=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_scores_are_paired_by_name():
    a, b = np.array([0.0, 1.0, 3.0]), np.array([4.0, -2.0])
    one = inference.measure_scores({"a": a, "b": b}, {"a": -a, "b": -b})
    other = inference.measure_scores({"a": a, "b": b}, {"b": -b, "a": -a})
    np.testing.assert_array_equal(one["summary"]["old_weight_mean"], other["summary"]["old_weight_mean"])


NAMES = ["[/step]", "🎉", "[red]", "a\nb", "$\\frac$", "_x", ":warning:", "[inf, inf]", "\\[x]"]


def test_a_table_shows_names_as_they_are():
    frame = tables.pd.DataFrame({"name": NAMES, "value": 1.0}, index=NAMES)
    columns = [("name", "name", lambda row, name: str(row[name]))]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables.listed(frame, columns, title="[/title]", caption="[caption]"))
        console.print(tables.by_name(frame, [("[label]", "value")], title="[/t]", caption="[c]"))
    for name in [
        "[/title]",
        "[caption]",
        "[label]",
        "[/t]",
        "[c]",
        "[/step]",
        "[inf, inf]",
        "\\[x]",
        ":warning:",
    ]:
        assert name in capture.get()


def test_a_figure_shows_names_as_they_are(tmp_path):
    with figures.style():
        figure, axes = figures.plt.subplots()
        for name in NAMES:
            axes.plot([0.0], [0.0], label=figures.entry(name))
        texts = [text.get_text().strip() for text in axes.legend().get_texts()]
        figures.save(figure, tmp_path, "names")
    assert texts == NAMES


def test_runs_are_named_by_their_folder_or_by_the_user(tmp_path):
    assert outputs.named(str(tmp_path / "exp1" / "sft")) == ("sft", tmp_path / "exp1" / "sft")
    assert outputs.named(f"a={tmp_path}/exp1/sft") == ("a", tmp_path / "exp1" / "sft")
    (tmp_path / "a=b").mkdir()
    assert outputs.named(str(tmp_path / "a=b")) == ("a=b", tmp_path / "a=b")
    for given in ("=x", "a/b=x", "a="):
        with pytest.raises(InputError, match="FOLDER or NAME=FOLDER"):
            outputs.named(given)
    with pytest.raises(InputError, match="as NAME=FOLDER gives them; got sft, sft"):
        compare_runs.run(
            compare_runs.Settings(folders=[tmp_path / "exp1" / "sft", tmp_path / "exp2" / "sft"])
        )


@pytest.mark.parametrize(
    "axis",
    [
        '"target.separation" = {first = 1, last = 2}',
        "learning_rate = {start = 1, stop = 2, num = 3}",
        "learning_rate = {}",
        "learning_rate = {count = 3}",
        "learning_rate.first = 1",
    ],
)
def test_an_axis_that_is_no_range_says_what_one_has(tmp_path, axis):
    file = tmp_path / "grid.toml"
    file.write_text(f'objectives = ["sft"]\n[grid]\n{axis}\n')
    name = axis.partition(" ")[0].strip('"').removesuffix(".first")
    with pytest.raises(InputError, match=f"^{name} must be a list, or have first, last, count"):
        analyses.sweep.run(analyses.sweep.Settings(grid=file), out=tmp_path / "x.zarr", progress=False)


def test_an_axis_of_too_many_values_is_refused(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(
        'objectives = ["sft"]\n[grid]\nlearning_rate = {first = 1, last = 2, count = 1000000000000}\n'
    )
    with pytest.raises(InputError, match="the count of learning_rate must be at most 100000"):
        analyses.sweep.run(analyses.sweep.Settings(grid=file), out=tmp_path / "x.zarr", progress=False)


def test_a_plan_says_why_it_cannot_be():
    settings = analyses.plan.Settings(objectives=["ttt_discover"], learning_rate=100.0)
    row = analyses.plan.summary(analyses.plan.run(settings)).iloc[0]
    assert row["answer"] == "no prediction: steps of rate 100 overshoot with kl_weight 0.1"


@pytest.mark.parametrize("name", objectives.by_default())
def test_many_dimensions_are_those_of_the_span(name):
    settings = analyses.compare.Settings(objectives=(name,), dimension=10**9)
    start, target, dimension = settings.placed([objectives.parse(name)])
    assert (start.dim, target.dim, dimension) == (1, 1, 10**9)


def test_dimensions_that_must_all_be_simulated_fit_into_memory(monkeypatch):
    chosen = [objectives.sft(learner="single_mode")]
    settings = analyses.compare.Settings(dimension=10**8, batch_size=4)
    monkeypatch.setattr(memory, "free", lambda: 1e9)
    with pytest.raises(InputError, match=r"the means of all modes must fit into memory; it takes 6\.4 GB"):
        settings.placed(chosen)
    with pytest.raises(InputError, match="batch_size times dimension"):
        analyses.compare.Settings(dimension=10**11).placed(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "sdft", "oapl:lag=2", "ttt_discover"])
def test_a_comparison_takes_any_dimension(name):
    settings = analyses.compare.Settings(
        objectives=(name,), dimension=10**9, num_steps=4, batch_size=4, num_replicates=4, learning_rate=1e-12
    )
    tree = analyses.compare.run(settings, progress=False)
    assert tree.attrs["dimension"] == 10**9
    assert analyses.compare.summary(tree)["num_diverged"].tolist() == [0]


@pytest.mark.slow
def test_more_coordinates_than_are_recorded_are_in_law_the_same():
    """The noise of an SFT step moves the new mean by η √(d/n) in norm, whatever simulates it."""
    drifts = []
    for most in (10, 10**6):
        settings = analyses.compare.Settings(
            objectives=("sft",), dimension=400, num_steps=1, batch_size=4, num_replicates=32,
            learning_rate=1.0, start_new_gap=0.0, separation=60.0, start_old_weight=0.01,
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(analyses.compare.settings, "MOST_COORDINATES", most)
            final = analyses.compare.run(settings, progress=False)["final"]
        assert ("new_mean" in final) == (most > 400)
        drifts.append(final["new_gap"].values.ravel())
    exact = 0.99 * np.sqrt(400 / 4)
    for drift in drifts:
        assert abs(drift.mean() - exact) < 5.0 * drift.std(ddof=1) / np.sqrt(drift.size) + 0.01
