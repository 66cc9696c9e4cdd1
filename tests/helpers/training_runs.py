"""Short trainings of one shape, which share a compiled program an objective, and how they are compared."""

from inference import train
from mixture_models import TwoMode, objectives

# Equal shapes everywhere, so that most tests share one compiled program an objective: 1-D, one variance,
# batch 8, 6 replicates, and at most 20 records.
TARGET = TwoMode.create(old_weight=0.4, old_mean=0.0, new_mean=3.0)
START = TARGET.replace(old_weight=0.8, old_mean=0.3, new_mean=2.0)
PARAMS = ("old_logit", "old_mean", "new_mean")


def run(chosen=None, start=START, target=TARGET, **changes):
    arguments = {
        "num_steps": 12,
        "batch_size": 8,
        "learning_rate": 0.1,
        "num_replicates": 6,
        "seed": 4,
        "progress": False,
    }
    return train(objectives.sft() if chosen is None else chosen, start, target, **(arguments | changes))


def variables(tree, objective=0):
    """Return every recorded variable as (replicate, step, ...)."""
    data = tree["trajectory"].to_dataset().isel(objective=objective, chain=0)
    return {name: data[name].to_numpy() for name in data.data_vars}


def diverged_steps(tree, objective=0):
    return tree["trajectory_stats"]["diverged_step"].isel(objective=objective, chain=0).to_numpy()


def assert_same(a, b, replicates=slice(None)):
    """Assert equality bit for bit, NaN included."""
    assert a
    assert set(a) == set(b)
    for name in a:
        assert a[name][replicates].tobytes() == b[name][replicates].tobytes(), name
