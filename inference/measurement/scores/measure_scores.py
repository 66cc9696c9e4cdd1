"""The posterior of the old weight from two log-likelihoods a sample, exact by quadrature."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from inference import results
from inference.engine import memory
from inference.engine.blas import on_one_thread
from inference.measurement.posterior.weight_posterior import NODES, WeightPosterior, weight_posterior
from inference.measurement.samples.labels import Labels
from inference.measurement.scores.answers import Given, answers_of
from inference.measurement.scores.forward_kl import add_forward_kl
from inference.measurement.scores.inputs import ScoresLike, by_checkpoint
from inference.measurement.scores.measure_task_scores import quantile_levels, scores_tree, tree_of_tasks
from inference.measurement.tasks.names import check_names, dirichlet_shapes
from inference.measurement.verdict.kinds import UNMEASURED
from mixture_models.validation import InputError, integer, number

results.register(
    old_weight_mean=("posterior mean of the old weight", "1"),
    old_weight_sd=("posterior standard deviation of the old weight", "1"),
    old_weight_quantile=("posterior quantile of the old weight", "1"),
    old_weight_density=("posterior density of the old weight", "1"),
    node_old_weight=("old weight at which the density is given", "1"),
    information=("information on the old weight a sample, 1: its mode is known", "1"),
    node=("node of the density", "1"),
    probability=("probability", "1"),
)

# What the priors may be: below 1 the density has a pole at the end.
_LEAST_SHAPE = 1.0


@on_one_thread
def measure_scores(
    old_log_likelihood: ScoresLike | Mapping[str, ScoresLike],
    new_log_likelihood: ScoresLike | None = None,
    *,
    new_task: str | None = None,
    log_base: ScoresLike | None = None,
    log_run: ScoresLike | None = None,
    sampled_from: str | None = None,
    prompts: Labels = None,
    tokens: ScoresLike | None = None,
    weight_prior: Sequence[float] = (1.0, 1.0),
    num_draws: int = 4000,
    seed: int = 0,
) -> xr.DataTree:
    """Return the posterior of the old weight from two log-likelihoods a sample, without drift.

        p(β | y) ∝ Beta(β; a, b) Π_i (β p_o(y_i) + (1-β) p_n(y_i)),   β in (0, 1)

    The two reference laws are taken as they are: that the old behaviour has moved, or that a score is
    wrong, is not seen. `inference.measure` sees it, from samples.

    From log-likelihoods of the base and of the run, for answers to prompts of the new task, it also measures
    the forward KL of the base from the run, E_x KL(base(·|x) ‖ run(·|x)). These answers need not be the
    samples: the old weight needs samples of the run, the forward KL is best measured from answers of the
    base.

    Args:
        old_log_likelihood: log p_o(y_i) of the samples under the old-task reference [nat]; an array of
            shape (sample,) or (checkpoint, sample), a list with one array a checkpoint, or a mapping from
            checkpoint names to arrays. Without ``new_log_likelihood`` a mapping from tasks to these, or a
            labelled array with a dim ``task``.
        new_log_likelihood: log p_n(y_i) of the same samples, in the same form.
        new_task: of several tasks the new one; None for ``"new"`` if there is one.
        log_base: log-likelihoods under the base of whole answers to prompts of the new task, given the prompt
            [nat]; in the same form, or of answers of the base one array (answer,) for all checkpoints.
        log_run: of the same answers under each checkpoint.
        sampled_from: whose answers they are, ``"base"`` or ``"run"``, sampled at temperature 1 from all of
            law. Those of the base give the forward KL as a plain mean. Those of the run give the reverse KL
            as a plain mean, and the forward one by importance weights, which large divergences make useless
            (``kl_k_hat`` above 0.7).
        prompts: labels of the answers' prompts, in the same form; the interval then holds for the mean over
            new prompts. None counts answers as independent.
        tokens: how many tokens each answer has, for a forward KL a token.
        weight_prior: shapes (a, b) of the Beta prior, each at least 1; (1, 1) is uniform. Of several tasks
            those of the Dirichlet prior, one a task.
        num_draws: draws of the posterior, in one chain.
        seed: of the draws.

    Returns:
        DataTree with ``/posterior`` (``old_weight`` over chain, draw, checkpoint), ``/summary``
        (``old_weight_mean``, ``old_weight_sd``, ``old_weight_quantile`` over checkpoint and probability,
        ``information`` on the weight a sample, and the verdict in ``words``) and ``/density``
        (``old_weight_density`` over checkpoint and node, at ``node_old_weight``). Moments and quantiles are
        of the density, not of the draws, and right to better than 1e-9. Of tasks other than old and new
        ``weight`` with a dim ``task`` by importance draws of the exact density, with its moments and
        quantiles, and no ``/density``.
        With log_base ``/posterior`` has ``forward_kl`` (and ``forward_kl_per_token``, ``reverse_kl``), draws
        of the Student law of a mean, below 0 too where a KL near 0 is not excluded, and ``/summary``
        ``forward_kl_mean``, ``forward_kl_error``, ``num_kl_answers``, ``num_kl_prompts`` prompts,
        ``kl_k_hat`` and the verdict ``kl_words``.

    Raises:
        InputError: scores that do not pair, none, NaN, or -inf under both references; log_base, log_run and
            sampled_from of which some are missing, fewer than two answers, or -inf under either model.

    Source: derivation in docs/measurement.md. Forward KL: Shenfeld et al. 2025 (arXiv:2509.04259); smoothed
    weights: Vehtari et al. (arXiv:1507.02646).
    """
    given = Given(log_base, log_run, sampled_from, prompts, tokens)
    if new_log_likelihood is None:
        tasks = _by_task(old_log_likelihood)
        if set(tasks) != {"old", "new"} or new_task == "old":
            return _of_tasks(tasks, new_task, given, weight_prior, num_draws, seed)
        old_log_likelihood, new_log_likelihood = tasks["old"], tasks["new"]
    elif new_task is not None:
        raise InputError(f"new_task names one of several tasks by name; got {new_task!r} without these")
    old = by_checkpoint("old_log_likelihood", old_log_likelihood)
    new = by_checkpoint("new_log_likelihood", new_log_likelihood)
    if set(old) != set(new):
        raise InputError(
            f"both log-likelihoods must have the same checkpoints; got {list(old)} and {list(new)}"
        )
    shapes = prior_shapes(weight_prior)
    num_draws = integer("num_draws", num_draws)
    # Strata, uniforms, and draws of every checkpoint.
    memory.check_fits("draws", 4.0 * 8.0 * num_draws * len(old), "take fewer (num_draws)")
    seed = integer("seed", seed, at_least=0)
    answers = answers_of(list(old), given)
    differences = {name: _difference(name, old[name], new[name]) for name in old}
    posteriors = [weight_posterior(difference, shapes) for difference in differences.values()]
    # One stratified uniform a draw: the draws are as even as draws can be.
    strata = np.random.default_rng(seed).permuted(np.tile(np.arange(num_draws), (len(old), 1)), axis=1)
    uniforms = (strata + np.random.default_rng([seed, 1]).uniform(size=strata.shape)) / num_draws
    draws = np.stack([p.quantiles(u) for p, u in zip(posteriors, uniforms, strict=True)], axis=-1)
    tree = _tree(differences, posteriors, draws, shapes, seed)
    return add_forward_kl(tree, answers, sampled_from, num_draws, seed)


def _by_task(scores: object) -> dict[str, ScoresLike]:
    """Return the scores of every task by its name."""
    if isinstance(scores, xr.DataArray) and "task" in scores.dims:
        labels = scores["task"].to_numpy()
        return {str(label): scores.isel(task=i, drop=True) for i, label in enumerate(labels)}
    if not isinstance(scores, Mapping):
        raise InputError(
            "there must be old and new log-likelihoods, or a mapping from tasks to log-likelihoods; got "
            f"{type(scores).__name__} alone"
        )
    return dict(scores)


def _of_tasks(
    tasks: dict[str, ScoresLike],
    new_task: str | None,
    given: Given,
    weight_prior: Sequence[float],
    num_draws: int,
    seed: int,
) -> xr.DataTree:
    """Measure the weights of several tasks."""
    new_task = check_names(tasks, new_task)
    shapes = dirichlet_shapes(weight_prior, len(tasks))
    num_draws, seed = integer("num_draws", num_draws), integer("seed", seed, at_least=0)
    memory.check_fits("draws", 8.0 * 8.0 * num_draws * len(tasks), "take fewer (num_draws)")
    found = {task: by_checkpoint(f"the log-likelihood of {task}", one) for task, one in tasks.items()}
    first, names = next(iter(found)), list(next(iter(found.values())))
    scores = {}
    for name in names:
        for task, one in found.items():
            if set(one) != set(names):
                raise InputError(
                    f"log-likelihoods must have the same checkpoints; {first} has {names} and {task} "
                    f"{list(one)}"
                )
            if one[name].shape != found[first][name].shape:
                raise InputError(
                    f"log-likelihoods must be of the same samples; checkpoint {name} has "
                    f"{found[first][name].size} of {first} and {one[name].size} of {task}"
                )
        scores[name] = np.stack([one[name] for one in found.values()], axis=1)
        nowhere = int(np.sum(np.all(np.isneginf(scores[name]), axis=1)))
        if nowhere:
            raise InputError(
                f"a sample must be possible under a task; {nowhere} of checkpoint {name} have -inf under all"
            )
    answers = answers_of(names, given)
    tree = tree_of_tasks(scores, list(tasks), shapes, new_task, num_draws, seed)
    return add_forward_kl(tree, answers, given.sampled_from, num_draws, seed)


def _difference(checkpoint: Hashable, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    if old.shape != new.shape:
        raise InputError(
            f"both log-likelihoods must be of the same samples; checkpoint {checkpoint} has {old.size} old "
            f"and {new.size} new ones"
        )
    nowhere = int(np.sum(np.isneginf(old) & np.isneginf(new)))
    if nowhere:
        raise InputError(
            f"a sample must be possible under a reference; {nowhere} of checkpoint {checkpoint} have -inf "
            "under both"
        )
    with np.errstate(over="ignore"):  # beyond all floats the side is certain
        result: np.ndarray = old - new
        return result


def prior_shapes(weight_prior: Sequence[float]) -> tuple[float, float]:
    """Return the shapes of a Beta prior, each at least 1, or raise `InputError`."""
    try:
        a, b = weight_prior
    except (TypeError, ValueError):
        raise InputError(f"weight_prior must be two shapes (a, b); got {weight_prior!r}") from None
    shapes = number("weight_prior a", a), number("weight_prior b", b)
    if min(shapes) < _LEAST_SHAPE:
        raise InputError(
            f"the shapes of weight_prior must be at least 1; got {shapes[0]:g} and {shapes[1]:g}"
        )
    return shapes


def _words(difference: np.ndarray, posterior: WeightPosterior, prior_sd: float) -> str:
    """Say what a reader must know before quoting the measurement."""
    if posterior.sd > 0.9 * prior_sd:
        return f"{UNMEASURED}: the scores of old and new hardly differ, the prior is all that is seen"
    certain = float(np.mean(np.abs(difference) > 2.0))
    if certain < 0.1:
        return "weak: the scores tell fewer than a tenth of the samples apart by 2 nats"
    return "good"


def _tree(
    differences: Mapping[Hashable, np.ndarray],
    posteriors: list[WeightPosterior],
    draws: Float[np.ndarray, "draw checkpoint"],
    shapes: tuple[float, float],
    seed: int,
) -> xr.DataTree:
    names = list(differences)
    probabilities = quantile_levels()
    prior_sd = float(stats.beta(*shapes).std())
    samples = [difference.size for difference in differences.values()]
    # The information about β that a sample holds, relative to a sample whose mode is known.
    information = [
        p.mean * (1.0 - p.mean) / max(p.sd**2, 1e-300) / size
        for p, size in zip(posteriors, samples, strict=True)
    ]
    panels = max(len(p.density) for p in posteriors)
    nodes, density = (
        np.stack([np.pad(a, (0, panels * NODES - a.size), constant_values=np.nan) for a in arrays])
        for arrays in zip(*((p.weights.ravel(), p.density.ravel()) for p in posteriors), strict=True)
    )
    summary = xr.Dataset(
        {
            "old_weight_mean": ("checkpoint", [p.mean for p in posteriors]),
            "old_weight_sd": ("checkpoint", [p.sd for p in posteriors]),
            "old_weight_quantile": (
                ("checkpoint", "probability"),
                np.stack([p.quantiles(probabilities) for p in posteriors]),
            ),
            "num_samples": ("checkpoint", samples),
            "information": ("checkpoint", information),
            "words": (
                "checkpoint",
                [_words(d, p, prior_sd) for d, p in zip(differences.values(), posteriors, strict=True)],
            ),
        },
        {"checkpoint": names, "probability": probabilities},
    )
    groups = {
        "posterior": xr.Dataset(
            {"old_weight": (("chain", "draw", "checkpoint"), draws[None])},
            {"chain": [0], "draw": np.arange(len(draws)), "checkpoint": names},
        ),
        "summary": summary,
        "density": xr.Dataset(
            {
                "node_old_weight": (("checkpoint", "node"), nodes),
                "old_weight_density": (("checkpoint", "node"), density),
            },
            {"checkpoint": names, "node": np.arange(nodes.shape[1])},
        ),
    }
    settings = {"weight_prior": list(shapes), "seed": seed}
    return scores_tree(groups, settings, "measurement of scores")
