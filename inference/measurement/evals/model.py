"""The models as NumPyro programs: one run beside the base, from cells of repeats or of chosen answers."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from inference.measurement.evals.cells import TaskCells
from inference.measurement.evals.item_integral import Numbers, log_base, log_cells
from inference.measurement.evals.prior import sample_run, sample_task
from mixture_models.types import AnyArray


def repeats_model(cells: TaskCells, counts: Float[AnyArray, "cell"]) -> None:
    """The answers of one run and of the base to the items of a task.

    a_i ~ N(μ, σ²), b_i = a_i + δ + τ ε_i; the base is right with probability g + (1-g) s(a_i), the run with
    probability (1-m) (g + (1-g) s(b_i)) + m g. Items are integrated out, see `item_integral`.

    Args:
        cells: of the task.
        counts: items of the run in each cell.
    """
    task, run = sample_task(), sample_run()
    of_base = log_base(task, cells.base) @ cells.base_counts
    of_run = log_cells(task, run, cells.base, cells.answers, cells.of_base, cells.of_run) @ counts
    numpyro.factor("cells", of_base + of_run)


def choices_model(num_choices: Float[AnyArray, "group"], counts: Float[AnyArray, "group 5"]) -> None:
    """One answer an item before and after: shares of items known or not, and how guesses persist.

    Args:
        num_choices: k of each group of items, shape (group,).
        counts: items of each group in the cells of `pairing.CELLS`, shape (group, 5).
    """
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(4)))
    persistence = numpyro.sample("persistence", dist.Uniform(0.0, 1.0))
    probabilities = choice_probabilities(shares, persistence, jnp.asarray(num_choices, float))
    numpyro.factor("cells", jnp.sum(counts * jnp.log(jnp.maximum(probabilities, 1e-300))))


def choice_probabilities(
    shares: Float[Numbers, "*b 4"], persistence: Float[Numbers, "*b"], k: Float[Numbers, "group"]
) -> AnyArray:
    """Return the probabilities of `pairing.CELLS`; they sum to 1.

    Works on arrays of NumPy and of JAX alike.

    Args:
        shares: KK (known before and after), KU (forgotten), UK (acquired), UU.
        persistence: s, the probability that the guess of an item that stays unknown is the same.
        k: number of choices.
    """
    kk, ku, uk, uu = (shares[..., i, None] for i in range(4))
    same = persistence[..., None]
    fresh = uu * (1.0 - same)
    cells = [
        kk + ku / k + uk / k + uu * same / k + fresh / k**2,
        ku * (k - 1.0) / k + fresh * (k - 1.0) / k**2,
        uk * (k - 1.0) / k + fresh * (k - 1.0) / k**2,
        uu * (k - 1.0) / k * same + fresh * (k - 1.0) / k**2,
        fresh * (k - 1.0) * (k - 2.0) / k**2,
    ]
    return (jnp if isinstance(kk, Array) else np).stack(cells, axis=-1)
