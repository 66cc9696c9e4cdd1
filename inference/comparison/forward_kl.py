"""The forward KL of the start from a trained learner, from what a result has recorded."""

import math
from functools import partial

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from inference import results
from inference.engine.blas import on_one_thread
from mixture_models import metrics
from mixture_models.integrals.divergences import MOST_MODES
from mixture_models.mixture.mixture import Mixture
from mixture_models.types import AnyArray
from mixture_models.validation import InputError

# Learners whose integrals are computed at once, by one program whatever their number.
_BATCH = 256


@on_one_thread
def forward_kl(tree: xr.DataTree, group: str) -> xr.DataArray:
    """Return KL(start ‖ learner) of every recorded learner of a group, exactly [nat].

    It is computed from the recorded parameters: within a training it would cost a tenth of its time.

    Args:
        tree: result of a training or of exact dynamics, of one start.
        group: ``trajectory``, ``final``, ``population`` or another group that records parameters.

    Returns:
        ``forward_kl`` over the dims of the group but for those of features and tasks; NaN where a learner has
        diverged.

    Raises:
        InputError: parameters that are not recorded (in the span of the means, or of another learner), a
            covariance that is trained or one a mode, or more than six tasks.

    Source: see `mixture_models.metrics.forward_kl`.
    """
    data, start = tree[group].to_dataset(), _start_of(tree)
    recorded = [name for name in start.arrays() if not name.endswith("scale")]
    if missing := [name for name in recorded if name not in data]:
        raise InputError(f"the forward KL needs recorded parameters; {group} has no {', '.join(missing)}")
    trained = [name for name in ("scale", "old_scale", "new_scale") if name in data]
    if trained or start.shared_scale is None or start.num_tasks > MOST_MODES:
        raise InputError(
            f"the forward KL needs at most {MOST_MODES} tasks of one covariance that is not trained; got "
            f"{start.num_tasks} tasks" + (", trained covariances" if trained else "")
        )
    events = ("task", "feature")
    dims = [dim for dim in data[recorded[0]].dims if dim not in events]
    shape = [data.sizes[dim] for dim in dims]
    flat = {
        name: data[name]
        .transpose(*dims, *(dim for dim in events if dim in data[name].dims))
        .to_numpy()
        .reshape(math.prod(shape), *(data.sizes[dim] for dim in events if dim in data[name].dims))
        for name in recorded
    }
    with jax.enable_x64(True):
        values = _of_all(start, flat).reshape(shape)
    coords = {name: c for name, c in data.coords.items() if set(c.dims) <= set(dims)}
    found = xr.DataArray(values, coords, dims, "forward_kl", results.attributes_of("forward_kl"))
    return found


def _of_all(start: Mixture, recorded: dict[str, np.ndarray]) -> Float[np.ndarray, "n"]:
    """Return the forward KL of learners along the first axis."""
    count = len(next(iter(recorded.values())))
    parts = []
    for first in range(0, count, _BATCH):
        # The last batch repeats learners to be as large as the others.
        places = np.minimum(np.arange(first, first + _BATCH), count - 1)
        parts.append(np.asarray(_of_batch(start, {name: v[places] for name, v in recorded.items()})))
    return np.concatenate(parts)[:count]


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def _of_batch(start: Mixture, recorded: dict[str, AnyArray]) -> jax.Array:
    return metrics.forward_kl(start.recorded(recorded), start)


def _start_of(tree: xr.DataTree) -> Mixture:
    constant = tree["constant_data"].to_dataset()
    return (results.task_mixture if "task" in constant.dims else results.two_mode)(tree, "start")
