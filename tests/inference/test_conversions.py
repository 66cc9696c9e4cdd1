"""No silent conversion: what is no real number is refused, what is masked is missing, everywhere alike."""

import datetime
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import estimate_setting, gradient_flow, measure, measure_scores, train
from inference.measurement.samples.sources import reference_of, samples_of
from mixture_models import InputError, SingleModeLearner, TwoMode, TwoModeLearner, objectives
from mixture_models.validation import finite_array, flag, integer, number, real_array

#: One value each that NumPy or Python would make a number of in silence.
NO_REALS = {
    "boolean": True,
    "NumPy boolean": np.True_,
    "complex": 1 + 0j,
    "complex with a part": np.complex128(1 + 2j),
    "text": "3",
    "bytes": b"3",
    "NumPy text": np.str_("3"),
    "date": np.datetime64("2020-01-01"),
    "duration": np.timedelta64(3, "D"),
    "datetime": datetime.datetime(2020, 1, 1),
    "None": None,
    "record": np.zeros((), [("x", float)]),
    "large": 2**53 + 1,
    "NumPy large": np.int64(2**53 + 1),
    "unsigned large": np.uint64(2**64 - 1),
    "set": {1.0},
    "mapping": {"a": 1.0},
    "masked": np.ma.masked,
}

REALS = [3, 3.0, np.int8(3), np.uint64(3), np.float16(3), np.float32(3), np.longdouble(3), Decimal(3)]
REALS += [Fraction(3), np.asarray(3), jnp.asarray(3.0), jnp.asarray(3, jnp.bfloat16), np.ma.array(3.0)]

#: Public places that take one number or an array of them.
PLACES = {
    "number": lambda v: number("x", v),
    "array": lambda v: finite_array("x", v),
    "list": lambda v: finite_array("x", [v]),
    "list in a list": lambda v: finite_array("x", [[1.0, 2.0], [1.0, v]]),
    "tuple": lambda v: finite_array("x", (1.0, v)),
    "weight": lambda v: TwoMode.create(v, 0.0, 4.0),
    "logit": lambda v: TwoMode.create(old_logit=v, old_mean=0.0, new_mean=4.0),
    "mean": lambda v: TwoMode.create(0.5, v, 4.0),
    "coordinate": lambda v: TwoMode.create(0.5, [0.0, v], [4.0, 0.0]),
    "variance": lambda v: TwoMode.create(0.5, 0.0, 4.0, v),
    "replay": lambda v: objectives.sft(replay=v),
    "times": lambda v: gradient_flow(objectives.sft(), START, TARGET, times=[1.0, v]),
    "learning rate": lambda v: run(learning_rate=v),
    "factor": lambda v: run(learning_rate_factors={"old_mean": v}),
    "prior": lambda v: measure_scores([0.0, 1.0], [1.0, 0.0], weight_prior=(1.0, v)),
    "score": lambda v: measure_scores([0.0, v], [1.0, 0.0]),
}

WHOLE = {
    "integer": lambda v: integer("x", v),
    "steps": lambda v: run(num_steps=v),
    "batch": lambda v: run(batch_size=v),
    "seed": lambda v: run(seed=v),
    "replicates": lambda v: run(num_replicates=v),
    "draws": lambda v: measure_scores([0.0, 1.0], [1.0, 0.0], num_draws=v),
}

TARGET = TwoMode.create(0.5, 0.0, 4.0)
START = TARGET.replace(old_weight=0.7)


def run(**changes):
    settings = {"num_steps": 2, "batch_size": 2, "learning_rate": 0.1, "num_replicates": 1, "seed": 0}
    return train(objectives.sft(), START, TARGET, progress=False, **settings | changes)


@pytest.mark.parametrize("kind", NO_REALS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_real_number_is_refused_in_one_sentence(place, kind):
    if (place, kind) == ("factor", "None"):
        pytest.skip("no factors")
    if kind == "None" and place in ("weight", "logit", "mean", "variance"):
        pytest.skip("None is no value, and has a meaning or a sentence of its own")
    with pytest.raises(
        InputError, match=r"must (be (a number|finite|numeric|numbers)|lie in|hold)|exactly one of"
    ) as refused:
        PLACES[place](NO_REALS[kind])
    assert "\n" not in str(refused.value) or "masked" in kind


@pytest.mark.parametrize("kind", [k for k in NO_REALS if "large" not in k])
@pytest.mark.parametrize("place", WHOLE)
def test_what_is_no_whole_number_is_refused(place, kind):
    with pytest.raises(InputError, match="must be a whole number"):
        WHOLE[place](NO_REALS[kind])


@pytest.mark.parametrize("value", [2.5, np.float64(2.5), Fraction(5, 2), np.nan, np.inf, [2], np.array([2])])
def test_a_whole_number_is_never_rounded_or_taken_out_of_an_array(value):
    with pytest.raises(InputError, match="must be a whole number"):
        integer("x", value)


@pytest.mark.parametrize("value", REALS)
def test_every_kind_of_real_number_is_taken_as_it_is(value):
    assert number("x", value) == 3.0
    assert integer("x", value) == 3
    assert finite_array("x", [value, 1.0]).tolist() == [3.0, 1.0]
    assert float(TwoMode.create(0.5, 0.0, value).new_mean[0]) == 3.0


@given(st.integers(-(2**80), 2**80))
def test_an_integer_is_exact_or_refused(value):
    assert integer("x", value, at_least=-(2**90)) == value
    if int(float(value)) == value:
        assert number("x", value) == value
        assert finite_array("x", [value])[0] == value
    else:
        for check in (number, finite_array):
            with pytest.raises(InputError, match="x must be"):
                check("x", value)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=8))
def test_a_masked_entry_is_nan_and_the_others_are_as_they_were(entries):
    values, mask = (np.array(part) for part in zip(*entries, strict=True))
    for array in (np.ma.array(values, mask=mask), [np.ma.array(values, mask=mask)] * 2):
        found = np.atleast_2d(real_array("x", array))
        for row in found:
            np.testing.assert_array_equal(row, np.where(mask, np.nan, values))
    if mask.any():
        with pytest.raises(InputError, match="finite"):
            finite_array("x", np.ma.array(values, mask=mask))


@pytest.mark.parametrize("value", ["no", "false", 0, 1, None, np.array([True])])
def test_a_flag_is_true_or_false_and_no_text(value):
    for place in (
        lambda v: flag("x", v),
        lambda v: run(common_random_numbers=v),
        lambda v: TwoModeLearner(train_scales=v),
        lambda v: SingleModeLearner(train_scale=v),
        lambda v: estimate_setting(OLD, NEW, drop_missing=v),
        lambda v: measure(OLD, OLD, NEW, neither=v),
        lambda v: measure(OLD, OLD, NEW, drop_missing=v),
    ):
        with pytest.raises(InputError, match="must be true or false"):
            place(value)


# Samples

RNG = np.random.default_rng(0)
OLD, NEW = RNG.normal(size=(40, 2)), RNG.normal(4.0, size=(40, 2))


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: [a], lambda a: {"a": a}, lambda a: {"samples": a}])
def test_a_masked_sample_is_a_missing_one(wrap):
    mask = np.zeros(OLD.shape, bool)
    mask[3, 1] = True
    masked = np.ma.array(OLD, mask=mask)
    loaded = samples_of("samples", wrap(masked)).load(0)
    np.testing.assert_array_equal(np.isnan(loaded), mask)
    np.testing.assert_array_equal(loaded[~mask], OLD[~mask])
    with pytest.raises(InputError, match="1 rows are not"):
        measure(wrap(masked), OLD, NEW)
    with pytest.raises(InputError, match="1 of the old reference"):
        measure(OLD, wrap(masked), NEW)


@pytest.mark.parametrize("dtype", [bool, complex, "U8", "M8[s]", "m8[s]", object])
def test_samples_that_are_no_numbers_are_refused(dtype):
    array = OLD.astype(object) if dtype is object else np.abs(OLD).astype(int).astype(dtype)
    if dtype is object:
        array[2, 1] = "1.5"
    for source in (array, [array], {"a": array}):
        with pytest.raises(InputError, match="numeric"):
            reference_of("old_reference", source)
    with pytest.raises(InputError, match="numeric"):
        reference_of("old_reference", pd.DataFrame(array))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble, np.int8, np.uint16])
def test_samples_of_every_kind_of_number_are_those(dtype):
    array = np.abs(10.0 * OLD).astype(dtype)
    np.testing.assert_array_equal(reference_of("old_reference", array)[0], array.astype(float))


def test_masked_scores_are_refused_and_masked_names_too():
    masked = np.ma.array([0.0, 1.0], mask=[False, True])
    for scores in (masked, [masked], {"a": masked}):
        with pytest.raises(InputError, match="1 of checkpoint"):
            measure_scores(scores, {"a": [1.0, 0.0]} if isinstance(scores, dict) else [[1.0, 0.0]])
    names = np.ma.array(np.repeat([1, 2], 20), mask=[True] + 39 * [False])
    with pytest.raises(InputError, match="must name the checkpoint of every row or entry; 1 have none"):
        samples_of("samples", {"samples": OLD, "checkpoint": names})


def test_a_named_array_of_a_file_keeps_its_name(tmp_path):
    cases = {"step500": ["step500"], "500": [500], "arr_0": [0], "samples": [0]}
    for key, names in cases.items():
        np.savez(tmp_path / "run.npz", **{key: OLD})
        assert samples_of("samples", tmp_path / "run.npz").names == names
    np.savez(tmp_path / "run.npz", both=np.stack([OLD, NEW]))
    assert samples_of("samples", tmp_path / "run.npz").names == [0, 1]


def test_a_plan_takes_a_value_or_the_samples_of_it(massdrift, tmp_path):
    np.save(tmp_path / "old.npy", OLD)
    np.save(tmp_path / "new.npy", NEW)
    samples = ["--old-samples", tmp_path / "old.npy", "--new-samples", tmp_path / "new.npy"]
    code, _, error = massdrift("plan", *samples, "--separation", 3)
    assert (code, "separation must be given or estimated" in error) == (2, True)
    learner = ["--learner-samples", tmp_path / "old.npy"]
    code, _, error = massdrift("plan", *samples, *learner, "--start-old-weight", 0.7)
    assert (code, "start_old_weight must be given or estimated" in error) == (2, True)
