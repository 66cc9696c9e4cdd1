"""Measure a run: for each checkpoint how much old behaviour is left and how far both modes have moved."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from inference import results
from inference.engine import memory as memory_of
from inference.engine.blas import on_one_thread
from inference.measurement.posterior import across, climb, laplace, law, nuts, pieces
from inference.measurement.posterior import derived as posterior
from inference.measurement.posterior.choice import choose_kind
from inference.measurement.posterior.prior import Prior
from inference.measurement.posterior.scales import ScalePosterior, scale_posterior
from inference.measurement.references.anchors import COVARIANCES as KINDS
from inference.measurement.references.anchors import NUM_DRAWS, References, anchor
from inference.measurement.references.contamination import Contamination, contamination_of
from inference.measurement.references.projection import Projection, project
from inference.measurement.samples import inputs, stored
from inference.measurement.samples.sources import Source
from inference.measurement.scores.measure_scores import prior_shapes
from inference.measurement.variables import VARIABLES
from inference.measurement.verdict import checks
from inference.measurement.verdict import words as verdict
from inference.storage import kept
from mixture_models.validation import InputError, flag, folder_of, integer, one_of, positive

results.register(**VARIABLES)

#: How the posterior is computed.
METHODS = ("auto", "laplace", "nuts")

#: Of modes' covariances and tails.
COVARIANCES, TAILS = ("auto", *KINDS), ("auto", "gaussian", "student")

_CHAINS = 4

# Samples that follow one another in the file, of which it is asked whether they are independent.
_CONSECUTIVE = 1000


class _Plan(NamedTuple):
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


class _Checkpoint(NamedTuple):
    """The samples of one checkpoint in the frame."""

    num_samples: int
    rows: Iterable[law.Rows]
    streamed: bool


@on_one_thread
def measure(
    samples: Source,
    old_reference: Source,
    new_reference: Source,
    *,
    seed: int = 0,
    method: str = "auto",
    covariance: str = "auto",
    tails: str = "auto",
    neither: bool = False,
    weight_prior: tuple[float, float] = (1.0, 1.0),
    displacement_scale: float = 0.5,
    num_draws: int = 1000,
    max_features: int = 64,
    drop_missing: bool = False,
    num_log_likelihood_rows: int = 0,
    memory: float | None = None,
    keep: str | Path | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Return the posterior of old weight and drift of every checkpoint of a run, from samples.

        y ~ β N(μ_o + Δ_o, Σ) + (1-β) N(μ_n + Δ_n, Σ),   β ~ Beta(a, b),   Δ ~ N(0, τ² Σ)

    The references anchor the modes: they give μ_o, μ_n and the modes' covariance and shape up to their own
    sampling error, which is part of the posterior. A mode has not moved at all with prior probability one
    half; else its displacement is shrunk toward zero with a scale that the checkpoint itself decides. The
    posterior is pooled over draws of the references' covariance and shape, which are the same for all
    checkpoints and for all runs that are measured against the same references: differences between
    checkpoints, draw by draw, are free of what they share.

    Args:
        samples: of the checkpoints: shape (checkpoint, sample, feature), a list or mapping of (sample,
            feature) arrays, a labelled array or table, or a file; see `sources.samples_of`.
        old_reference: samples of the old task, shape (sample, feature), or a file.
        new_reference: samples of the new task, likewise.
        seed: of all random numbers.
        method: ``"laplace"`` (fast), ``"nuts"``, or ``"auto"``: fast, and NUTS for the checkpoints whose k̂
            says that the fast path cannot be trusted and whose samples fit into memory.
        covariance: ``"shared"`` by both modes; ``"axis"``: of each mode its own shape along the axis between
            the references, and across it no claim but means; ``"proportional"``; ``"unequal"``; or
            ``"auto"``: by held-out references, ``"axis"`` unless another is clearly better.
        tails: ``"gaussian"``, ``"student"`` (Student-t modes, their degrees of freedom fitted to the
            references), or ``"auto"`` by BIC.
        neither: whether a third, broad component takes samples that belong to neither task.
        weight_prior: shapes (a, b) of the Beta prior of the old share, each at least 1.
        displacement_scale: scale of the Student-t laws of displacement [Mahalanobis].
        num_draws: of the posterior, over four chains; rounded up to a multiple of 100.
        max_features: with more features than this, samples are projected to this many coordinates; see
            `inference.measurement.references.projection`.
        drop_missing: whether rows with a value that is not finite are left out instead of refused.
        num_log_likelihood_rows: samples of each checkpoint whose log-likelihood is kept, for ``az.loo``, at
            most as many as the smallest checkpoint has; 0 keeps none.
        memory: bytes that a checkpoint may take; None for 40 % of the machine's. The samples of one that
            takes more are streamed: read anew, piece by piece, whenever something is summed over them.
        keep: folder in which finished checkpoints are kept, and from which an interrupted measurement
            of the same data with the same settings goes on.
        progress: whether to show a progress bar.

    Returns:
        DataTree with ``/posterior`` (``old_weight``, ``new_weight``, ``old_displacement``,
        ``new_displacement``, ``old_drift``, ``new_gap``), ``/sample_stats`` (how each checkpoint was
        computed, resolutions, diagnostics, and the verdict in ``words``, of the weight alone in
        ``weight_words`` and of the drift in ``drift_words``), ``/observed_data`` (a summary),
        ``/posterior_predictive``, ``/constant_data``, and ``/log_likelihood`` on demand; described in
        docs/measurement.md.

    Raises:
        InputError: an unusable input, before anything is computed.

    Source: derivation in docs/measurement.md.
    """
    one_of("method", method, METHODS)
    one_of("covariance", covariance, COVARIANCES)
    one_of("tails", tails, TAILS)
    shapes = prior_shapes(weight_prior)
    prior = Prior(shapes, positive("displacement_scale", displacement_scale))
    seed = integer("seed", seed, at_least=0)
    step = _CHAINS * NUM_DRAWS
    num_draws = -(-integer("num_draws", num_draws, at_least=step) // step) * step
    # Means, displacements and scales of every draw of a checkpoint; before the data are read.
    memory_of.check_fits("draws", 8.0 * 16.0 * num_draws, "take fewer (num_draws)")
    num_rows = integer("num_log_likelihood_rows", num_log_likelihood_rows, at_least=0, at_most=10_000)
    max_features = integer("max_features", max_features)
    limit = stored.default_memory() if memory is None else positive("memory", memory)
    neither, drop_missing = flag("neither", neither), flag("drop_missing", drop_missing)
    checked = inputs.check(samples, old_reference, new_reference, drop_missing=drop_missing, memory=limit)
    projection = project(checked.old, checked.new, max_features)
    old, new = projection.old, projection.new
    inputs.check_own_covariances(old, new)
    sizes = [pieces.bytes_of(summary.num, old.shape[1]) for summary in checked.summaries]
    if method == "nuts" and max(sizes) > limit:
        raise InputError(
            "a checkpoint must fit into memory for NUTS, which reads all of it at every step; checkpoint "
            f"{checked.samples.names[int(np.argmax(sizes))]} takes {max(sizes) / 1e9:.2g} GB, and "
            f"{limit / 1e9:.2g} GB can be used: choose the method laplace, or give fewer samples"
        )
    if neither and covariance == "axis":
        raise InputError(
            "a third component is seen in all coordinates, not along the axis alone; got neither "
            "with the covariance axis"
        )
    kind = choose_kind(old, new, covariance, tails, safe="shared" if neither else "axis")
    least = old.shape[1] + 7
    if kind.covariance in ("unequal", "proportional") and min(len(old), len(new)) < least:
        raise InputError(
            f"{kind.covariance} covariances of {old.shape[1]} features need {least} samples of either "
            f"reference; got {len(old)} and {len(new)}"
        )
    num_rows = min(num_rows, *(summary.num for summary in checked.summaries))
    settings = {
        "seed": seed,
        "method": method,
        "covariance": kind.covariance,
        "tails": "student" if kind.heavy_tails else "gaussian",
        "neither": neither,
        "weight_prior": list(shapes),
        "displacement_scale": prior.displacement_scale,
        "num_draws": num_draws,
        "max_features": max_features,
        "drop_missing": drop_missing,
        "num_log_likelihood_rows": num_rows,
    }
    with jax.enable_x64(True):
        references = anchor(old, new, kind, worth=projection.worth)
        plan = _Plan(
            references,
            contamination_of(references),
            projection,
            prior,
            method,
            neither,
            num_draws,
            num_rows,
            seed,
        )
        names = checked.samples.names
        facts = _facts(settings, checked)
        measured = []
        keeping = nullcontext() if keep is None else kept.keeping(folder_of("keep", keep))
        with keeping, tqdm(names, desc="measuring", unit="checkpoint", disable=not progress) as bar:
            folder = kept.folder()
            for index, _ in enumerate(bar):
                compute = partial(_measured, plan, checked, projection, index, streamed=sizes[index] > limit)
                found = kept.arrays((facts, index, checked.summaries[index].digest), compute, folder=folder)
                measured.append(found)
    tail_dof = references.central.tail_dof
    extra = {
        "tail_dof": float("nan") if tail_dof is None else float(tail_dof[0]),
        "num_dropped": checked.num_dropped,
        "num_reference_copies": checked.num_reference_copies,
        "information_kept": projection.information_kept,
        "separation": _separation(references),
        "references": inputs.digest_of(checked.old) + inputs.digest_of(checked.new),
    }
    return _tree(measured, names, checked, projection, plan, settings, extra)


def _degenerate(checked: inputs.Checked, index: int, error: Exception) -> str:
    """Say what is odd about a checkpoint that cannot be computed with, in units of the references."""
    summary = checked.summaries[index]
    both = np.concatenate([checked.old, checked.new])
    spread = both.std(axis=0)
    far, ratio = np.abs(summary.mean - both.mean(axis=0)) / spread, summary.sd / spread
    return (
        f"checkpoint {checked.samples.names[index]} cannot be measured ({str(error).rstrip('.')}): its "
        f"features spread {ratio.min():.2g} to {ratio.max():.2g} times as wide as those of both references, "
        f"and their means lie up to {far.max():.2g} of these spreads away: look for outliers, other units or "
        "samples that are all equal"
    )


def _separation(references: References) -> float:
    """Return the distance of the references' means less what the noise of the means adds to it."""
    noise = float(np.trace(references.mean_covariances.sum(axis=0)))
    return float(np.sqrt(max(float(references.means[0, 0]) ** 2 - noise, 0.0)))


def _measured(
    plan: _Plan, checked: inputs.Checked, projection: Projection, index: int, *, streamed: bool
) -> dict[str, np.ndarray]:
    """Return all that is kept of one checkpoint."""
    summary = checked.summaries[index]
    checkpoint = _checkpoint(plan, checked, projection, index, streamed=streamed)
    try:
        found = measure_checkpoint(plan, checkpoint, checked, index)
    except np.linalg.LinAlgError as error:
        raise InputError(_degenerate(checked, index, error)) from error
    return found | {"observed_mean": summary.mean, "observed_sd": summary.sd}


def _checkpoint(
    plan: _Plan, checked: inputs.Checked, projection: Projection, index: int, *, streamed: bool
) -> _Checkpoint:
    def in_frame() -> Iterator[np.ndarray]:
        for y in checked.pieces(index):
            yield plan.references.frame.coordinates(projection.apply(y))

    num, d = checked.summaries[index].num, plan.references.old.shape[1]
    return _Checkpoint(num, pieces.pieces_of(in_frame, num, d, streamed=streamed), streamed)


def measure_checkpoint(
    plan: _Plan, checkpoint: _Checkpoint, checked: inputs.Checked, index: int
) -> dict[str, np.ndarray]:
    """Measure one checkpoint; return all that is kept of it, flat."""
    references, prior, neither = plan.references, plan.prior, plan.neither
    num, rows, summary = checkpoint.num_samples, checkpoint.rows, checked.summaries[index]
    rng = np.random.default_rng([plan.seed, index])
    on_line = references.kind.covariance == "axis"
    seen = pieces.narrowed(rows, 1) if on_line else rows
    central = climb.find_mode(references.central, prior, seen, neither=neither)
    modes = climb.modes_of_draws(references.draws, prior, seen, central, neither=neither)
    each = plan.num_draws // NUM_DRAWS
    scales = _scales(references, prior, rows, central, neither=neither)
    draws = laplace.draw(references.draws, prior, seen, scales, modes, neither=neither, num=each, rng=rng)
    stats: dict[str, float | str] = {"num_samples": num, "streamed": int(checkpoint.streamed)}
    stats |= {"k_hat": draws.k_hat, "efficiency": draws.efficiency, "method": "laplace"}
    stats |= {"r_hat": np.nan, "ess": np.nan, "divergences": 0}
    doubtful = plan.method == "auto" and not draws.k_hat <= laplace.MOST_K_HAT
    if plan.method == "nuts" or (doubtful and not checkpoint.streamed):
        (held,) = seen
        fast = draws.scales
        draws, sampled = nuts.sample(references.draws, prior, held, draws, neither=neither, num=each, rng=rng)
        if on_line:
            draws = draws._replace(scales=_scales_across(draws.scales, fast, rng))
        stats |= {"method": "nuts", **sampled}
    line = draws
    if on_line and references.old.shape[1] > 1:
        draws = _with_across(references, rows, draws, rng)
    reported = posterior.report(references, draws, rng)
    looked_at, kept_rows = (
        rng.choice(num, min(most, num), replace=False) if most else np.arange(0)
        for most in (checks.MOST_ROWS, plan.num_log_likelihood_rows)
    )
    places = np.concatenate([looked_at, kept_rows, np.arange(min(num, _CONSECUTIVE))])
    ends = np.cumsum([len(looked_at), len(kept_rows)])
    y, kept_y, consecutive = np.split(stored.take(pieces.sample_arrays(rows), places), ends)
    prediction = checks.predictive_check(references, draws, y, rng)
    weight = float(reported.old_weight.mean())
    stats |= posterior.precision_of(references, draws, y, num)._asdict()
    stats |= {f"deviation_{n}": z for n, z in zip(checks.STATISTICS, prediction.deviations, strict=True)}
    stats |= checks.independence_of(references, weight, y, consecutive, rng)._asdict()
    stats |= {"num_repeated": summary.num_repeated, "old_weight_mean": weight}
    stats["deviation_left_out"] = checks.left_out_deviation(
        plan.projection.rest, (checked.old, checked.new), weight, summary.mean, num
    )
    for name, length in (("old", reported.old_drift), ("new", reported.new_gap)):
        stats[f"{name}_unmoved_probability"] = float(np.mean(length == 0.0))
    for name, mean, at in zip(
        ("old", "new"),
        (draws.unknowns.old_mean, draws.unknowns.new_mean),
        references.means[:, 0],
        strict=True,
    ):
        stats[f"{name}_along_axis"] = float(np.mean(np.asarray(mean)[..., 0]) - at)
    stats |= {f"contaminated_{name}": share for name, share in plan.contamination._asdict().items()}
    words = verdict.verdicts(stats, references.old.shape[1], _separation(references))
    stats |= {"weight_words": words[0], "drift_words": words[1], "words": verdict.together(*words)}
    flat = {f"posterior_{name}": _by_slot(array) for name, array in reported._asdict().items()}
    flat |= {f"stats_{name}": np.asarray(value) for name, value in stats.items()}
    flat |= {"check_observed": prediction.observed, "check_replicated": prediction.replicated}
    if plan.num_log_likelihood_rows:
        flat["log_likelihood"] = _by_slot(
            law.pointwise(references.draws, line.unknowns, kept_y[:, : references.draws.means.shape[-1]])
        )
    return flat


def _scales(
    references: References, prior: Prior, rows: Iterable[law.Rows], central: climb.Modes, *, neither: bool
) -> ScalePosterior:
    """Return the posterior of the scales of displacement around the central mode."""
    one, quadratic = climb.unbatched(references.central), central.quadratic(references.central)
    if references.kind.covariance != "axis" or references.old.shape[1] == 1:
        return scale_posterior(one, prior, quadratic)
    unknowns = climb.restored(law.start_of(one, 0.0, neither), central.flat[0])
    found = across.estimate(references, [(one, unknowns)], rows)
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


def _with_across(
    references: References, rows: Iterable[law.Rows], draws: laplace.Draws, rng: np.random.Generator
) -> laplace.Draws:
    """Return draws along the axis with the means across it."""
    shape = draws.scales.shape[:2]
    sets = across.sets_of(references.draws, draws.unknowns, across.SETS)
    estimates = across.estimate(references, sets, rows)
    which = np.arange(shape[0])[:, None] * across.SETS + np.arange(shape[1]) % across.SETS
    scales = draws.scales[..., 1].reshape(-1, 2)
    beside = across.draw_means(references, estimates, which.ravel(), scales, rng).reshape(*shape, 2, -1)
    means = [
        np.concatenate([np.asarray(mean), beside[:, :, mode]], axis=-1)
        for mode, mean in enumerate((draws.unknowns.old_mean, draws.unknowns.new_mean))
    ]
    return draws._replace(unknowns=draws.unknowns._replace(old_mean=means[0], new_mean=means[1]))


def _by_slot(array: ArrayLike) -> np.ndarray:
    """Return draws (R, J, ...) one after the other, each draw of the anchors at every R-th place."""
    values = np.swapaxes(np.asarray(array), 0, 1)
    return values.reshape(-1, *values.shape[2:])


# Of kept checkpoints: those of another format are measured again.
_FORMAT = 2


def _facts(settings: dict[str, object], checked: inputs.Checked) -> str:
    """Return what stands for the settings and the references."""
    common = hashlib.sha256(json.dumps(settings | {"format": _FORMAT}, sort_keys=True).encode())
    for array in (checked.old, checked.new):
        common.update(np.ascontiguousarray(array).tobytes())
    return common.hexdigest()


def _tree(
    measured: list[dict[str, np.ndarray]],
    names: list[Hashable],
    checked: inputs.Checked,
    projection: Projection,
    plan: _Plan,
    settings: dict[str, object],
    extra: dict[str, object],
) -> xr.DataTree:
    per_chain = plan.num_draws // _CHAINS
    features = checked.features if projection.names is None else projection.names
    draws = {
        "chain": np.arange(_CHAINS),
        "draw": np.arange(per_chain),
        "checkpoint": names,
        "reference_draw": ("draw", np.arange(per_chain) % NUM_DRAWS),
    }

    def stacked(key: str) -> np.ndarray:
        return np.stack([np.asarray(found[key]) for found in measured])

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): stacked(k) for k in measured[0] if k.startswith(prefix)}

    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, array in group("posterior_").items():
        split = array.reshape(len(names), _CHAINS, per_chain, *array.shape[2:])
        dims = ("chain", "draw", "checkpoint", *(["feature"] if array.ndim == 3 else []))
        variables[name] = (dims, np.moveaxis(split, 0, 2))
    stats = {name: ("checkpoint", array) for name, array in group("stats_").items()}
    observed = group("observed_")
    checked_names = {"statistic": list(checks.STATISTICS)}
    replicated = stacked("check_replicated")
    frame, means = plan.references.frame, plan.references.means
    groups = {
        "posterior": xr.Dataset(variables, draws | {"feature": features}),
        "sample_stats": xr.Dataset(stats, {"checkpoint": names}),
        "observed_data": xr.Dataset(
            {
                "check_statistic": (("checkpoint", "statistic"), stacked("check_observed")),
            },
            {"checkpoint": names} | checked_names,
        ),
        "posterior_predictive": xr.Dataset(
            {
                "check_statistic": (
                    ("chain", "draw", "checkpoint", "statistic"),
                    np.moveaxis(replicated, 0, 1)[None],
                )
            },
            {"chain": [0], "draw": np.arange(replicated.shape[1]), "checkpoint": names} | checked_names,
        ),
        "constant_data": xr.Dataset(
            {
                "sample_mean": (("checkpoint", "source_feature"), observed["mean"]),
                "sample_sd": (("checkpoint", "source_feature"), observed["sd"]),
                "reference_mean": (
                    ("mode", "source_feature"),
                    np.stack([checked.old.mean(0), checked.new.mean(0)]),
                ),
                "frame_mean": (("mode", "coordinate"), means),
                "frame_origin": ("feature", frame.origin),
                "frame_forward": (("coordinate", "feature"), frame.forward),
                "projection": (("source_feature", "feature"), projection.matrix),
            },
            {
                "checkpoint": names,
                "mode": ["old", "new"],
                "feature": features,
                "source_feature": checked.features,
                "coordinate": np.arange(means.shape[1]),
            },
        ),
    }
    if "log_likelihood" in measured[0]:
        values = stacked("log_likelihood").reshape(len(names), _CHAINS, per_chain, -1)
        groups["log_likelihood"] = xr.Dataset(
            {"y": (("chain", "draw", "checkpoint", "row"), np.moveaxis(values, 0, 2))},
            {k: draws[k] for k in ("chain", "draw", "checkpoint")} | {"row": np.arange(values.shape[-1])},
        )
    attrs = results.provenance(settings) | {"kind": "measurement"} | extra
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=attrs)} | {f"/{name}": results.describe(data) for name, data in groups.items()}
    )
