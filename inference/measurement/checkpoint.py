"""One checkpoint: its posterior, what is checked of it, and what is kept."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from inference.measurement.posterior import across, climb, laplace, law, nuts, pieces
from inference.measurement.posterior import derived as posterior
from inference.measurement.posterior.prior import Prior
from inference.measurement.posterior.prompts import prompt_draws
from inference.measurement.posterior.prompts import reported as reported_prompts
from inference.measurement.posterior.scales import ScalePosterior, scale_posterior
from inference.measurement.prompts import integral
from inference.measurement.references.anchors import NUM_DRAWS, References, unbatched
from inference.measurement.references.clusters import concentration_of, likeness_of
from inference.measurement.references.contamination import Contamination
from inference.measurement.references.projection import Projection
from inference.measurement.run.measured import Measured, places_looked_at, samples_at
from inference.measurement.samples import inputs
from inference.measurement.samples.labels import Prompts
from inference.measurement.verdict import checks
from inference.measurement.verdict import words as verdict


class Setup(NamedTuple):
    """What is the same for all checkpoints."""

    references: References
    contamination: Contamination
    projection: Projection
    prior: Prior
    method: str
    neither: bool
    num_draws: int
    num_log_likelihood_rows: int
    seed: int

    @property
    def on_line(self) -> bool:
        """Whether the weight is seen along the axis between the references alone."""
        return self.references.kind.covariance == "axis"


class Checkpoint(NamedTuple):
    """The samples of one checkpoint in the frame, and the prompts they come from, if they are known."""

    num: int
    rows: pieces.Samples
    streamed: bool
    prompts: Prompts | None = None


def measure_checkpoint(setup: Setup, checkpoint: Checkpoint, checked: inputs.Checked, index: int) -> Measured:
    """Measure one checkpoint."""
    references, summary = setup.references, checked.summaries[index]
    rng = np.random.default_rng([setup.seed, index])
    prompts = checkpoint.prompts
    of_prompts = None if prompts is None else _arranged(checkpoint, prompts)
    line, computed = _sampled(setup, checkpoint, of_prompts, rng)
    draws, across_variances = line, None
    if setup.on_line and references.old.shape[1] > 1:
        draws, across_variances = _with_across(references, checkpoint, line, rng)
    reported = posterior.report(references, draws, rng)
    places = places_looked_at(checkpoint.num, setup.num_log_likelihood_rows, rng)
    y, kept_y, consecutive = samples_at(checkpoint.rows, places)
    codes, prompted, worth = None, None, float(checkpoint.num)
    if prompts is not None and of_prompts is not None:
        codes = prompts.codes[places[0]], prompts.codes[places[2]]
        alike = _alike_across(references, checkpoint, line)
        drawn = partial(prompt_draws, references.draws, line.unknowns, arranged=of_prompts, rng=rng)
        prompted = checks.Prompted(codes[0], drawn, alike)
        concentration = concentration_of(prompts.codes)
        worth /= 1.0 + (concentration * checkpoint.num - 1.0) * float(np.sum(alike) / max(len(alike), 1))
    prediction = checks.predictive_check(references, draws, y, rng, prompted)
    weight = float(reported.old_weight.mean())
    stats: dict[str, float | str] = {
        "num_samples": checkpoint.num,
        **({} if prompts is None else {"num_prompts": len(np.unique(prompts.codes))}),
        "streamed": int(checkpoint.streamed),
        **computed,
        **posterior.precision_of(
            references, draws, y, checkpoint.num, None if prompts is None else prompts.codes, across_variances
        )._asdict(),
        **{f"deviation_{n}": z for n, z in zip(checks.STATISTICS, prediction.deviations, strict=True)},
        **checks.independence_of(
            (references.old, references.new),
            (weight, 1.0 - weight),
            y,
            checks.without_modes(references, consecutive),
            rng,
            codes,
        )._asdict(),
        "num_repeated": summary.num_repeated,
        "old_weight_mean": weight,
        "deviation_left_out": checks.left_out_deviation(
            setup.projection.rest, (checked.old, checked.new), weight, summary.mean, worth
        ),
        "old_unmoved_probability": float(np.mean(reported.old_drift == 0.0)),
        "new_unmoved_probability": float(np.mean(reported.new_gap == 0.0)),
        "old_along_axis": _along_axis(draws.unknowns.old_mean, references, 0),
        "new_along_axis": _along_axis(draws.unknowns.new_mean, references, 1),
        **{f"contaminated_{name}": share for name, share in setup.contamination._asdict().items()},
    }
    kept_draws = reported._asdict() | reported_prompts(line.unknowns)
    if prompts is not None and of_prompts is not None and prompts.groups is not None:
        kept_draws["group_weight"] = _group_weights(references, line, of_prompts, prompts.groups, rng)
    words = verdict.verdicts(stats, references.old.shape[1], references.separation)
    stats |= {"weight_words": words[0], "drift_words": words[1], "words": verdict.together(*words)}
    kept_likelihood = {}
    if setup.num_log_likelihood_rows:
        seen = kept_y[:, : references.draws.means.shape[-1]]
        kept_likelihood["y"] = posterior.by_slot(law.pointwise(references.draws, line.unknowns, seen))
    return Measured(
        posterior={name: posterior.by_slot(array) for name, array in kept_draws.items()},
        stats={name: np.asarray(value) for name, value in stats.items()},
        observed={"mean": summary.mean, "sd": summary.sd},
        check={"observed": prediction.observed, "replicated": prediction.replicated},
        log_likelihood=kept_likelihood,
    )


def _arranged(checkpoint: Checkpoint, prompts: Prompts) -> integral.Arranged:
    """Return the samples along the axis by prompt."""
    (held,) = checkpoint.rows
    along = np.asarray(held.y[..., 0]).ravel()[np.ravel(held.weights) > 0.0]
    return integral.arrange(along, prompts.codes)


def _group_weights(
    references: References,
    line: laplace.Draws,
    arranged: integral.Arranged,
    groups: Bool[np.ndarray, "group prompt"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "R J group"]:
    """Return draws of the mean old share of the prompts of every group, NaN where it has no prompts."""
    shape = line.scales.shape[:2]
    every = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    share = prompt_draws(references.draws, line.unknowns, every, arranged, rng).old_share
    counts = groups.sum(axis=1)
    means = share @ groups.T / np.maximum(counts, 1)
    return np.where(counts > 0, means, np.nan).reshape(*shape, len(groups))


def _alike_across(
    references: References, checkpoint: Checkpoint, line: laplace.Draws
) -> Float[np.ndarray, "p"]:
    """Return how alike the samples of a prompt are in every coordinate across the axis."""
    p = references.old.shape[1] - 1
    if checkpoint.prompts is None or p == 0:
        return np.zeros(p)
    y = np.concatenate(list(pieces.sample_arrays(checkpoint.rows)))[: checkpoint.num]
    pair = across.sets_of(references.draws, line.unknowns, 1)[0]
    found = across.estimate(references, [pair], checkpoint.rows)
    left = across.residuals(references, pair, found.means[0], y)
    return likeness_of(left, checkpoint.prompts.codes)


def _sampled(
    setup: Setup, checkpoint: Checkpoint, of_prompts: integral.Arranged | None, rng: np.random.Generator
) -> tuple[laplace.Draws, dict[str, float | str]]:
    """Return draws of the posterior, along the axis where it is seen there alone, and how they were made."""
    references, prior, neither = setup.references, setup.prior, setup.neither
    whole = pieces.narrowed(checkpoint.rows, 1) if setup.on_line else checkpoint.rows
    seen: Iterable[law.Seen] = whole if of_prompts is None else of_prompts.pieces
    central = climb.find_mode(references.central, prior, seen, neither=neither)
    modes = climb.modes_of_draws(references.draws, prior, seen, central, neither=neither)
    each = setup.num_draws // NUM_DRAWS
    scales = _scales(references, prior, checkpoint, central, neither=neither)
    fast = laplace.draw(references.draws, prior, seen, scales, modes, neither=neither, num=each, rng=rng)
    made: dict[str, float | str] = {"k_hat": fast.k_hat, "efficiency": fast.efficiency, "method": "laplace"}
    made |= {"r_hat": np.nan, "ess": np.nan, "divergences": 0}
    doubtful = setup.method == "auto" and not fast.k_hat <= laplace.MOST_K_HAT
    # By prompt every step of NUTS integrates over all prompts: hours, unless it is asked for.
    goes_on = doubtful and not checkpoint.streamed and of_prompts is None
    if not (setup.method == "nuts" or goes_on):
        return fast, made
    held: nuts.Held
    if of_prompts is None:
        (held,) = whole
    else:
        held = of_prompts.pieces
    draws, sampled = nuts.sample(references.draws, prior, held, fast, neither=neither, num=each, rng=rng)
    if setup.on_line:
        draws = draws._replace(scales=_scales_across(draws.scales, fast.scales, rng))
    return draws, made | {"method": "nuts", **sampled}


def _along_axis(mean: ArrayLike, references: References, mode: int) -> float:
    """Return the mean displacement of a mode along the axis."""
    return float(np.mean(np.asarray(mean)[..., 0]) - references.means[mode, 0])


def _scales(
    references: References, prior: Prior, checkpoint: Checkpoint, central: climb.Modes, *, neither: bool
) -> ScalePosterior:
    """Return the posterior of the scales of displacement around the central mode."""
    one, quadratic = unbatched(references.central), central.quadratic(references.central)
    if references.kind.covariance != "axis" or references.old.shape[1] == 1:
        return scale_posterior(one, prior, quadratic)
    unknowns = climb.restored(law.start_of(one, 0.0, neither), central.flat[0])
    found = across.estimate(references, [(one, unknowns)], checkpoint.rows, _codes(checkpoint))
    return scale_posterior(one, prior, quadratic, across.summary_of(references, found))


def _scales_across(
    scales: Float[np.ndarray, "R J 2 2"], fast: Float[np.ndarray, "R J 2 2"], rng: np.random.Generator
) -> Float[np.ndarray, "R J 2 2"]:
    """Give what has moved the fast path's scales across the axis: NUTS along the axis sees nothing of it."""
    found = scales.copy()
    for mode in (0, 1):
        moved, pool = scales[..., mode, 0] > 0.0, fast[..., mode, 1][fast[..., mode, 0] > 0.0]
        if moved.any():
            found[moved, mode, 1] = rng.choice(pool, int(moved.sum()))
    return found


def _codes(checkpoint: Checkpoint) -> np.ndarray | None:
    return None if checkpoint.prompts is None else checkpoint.prompts.codes


def _with_across(
    references: References, checkpoint: Checkpoint, draws: laplace.Draws, rng: np.random.Generator
) -> tuple[laplace.Draws, Float[np.ndarray, "2 p"] | None]:
    """Return draws along the axis with the means across it, and where there are prompts their variances."""
    shape = draws.scales.shape[:2]
    sets = across.sets_of(references.draws, draws.unknowns, across.SETS)
    estimates = across.estimate(references, sets, checkpoint.rows, _codes(checkpoint))
    which = np.arange(shape[0])[:, None] * across.SETS + np.arange(shape[1]) % across.SETS
    scales = draws.scales[..., 1].reshape(-1, 2)
    prior = references.means[:, 1:], references.mean_covariances[:, 1:, 1:]
    beside = across.draw_means(*prior, estimates, which.ravel(), scales, rng).reshape(*shape, 2, -1)
    means = [
        np.concatenate([np.asarray(mean), beside[:, :, mode]], axis=-1)
        for mode, mean in enumerate((draws.unknowns.old_mean, draws.unknowns.new_mean))
    ]
    variances = np.einsum("sapap->ap", estimates.covariances) / len(estimates.means)
    both = draws._replace(unknowns=draws.unknowns._replace(old_mean=means[0], new_mean=means[1]))
    return both, None if checkpoint.prompts is None else variances
