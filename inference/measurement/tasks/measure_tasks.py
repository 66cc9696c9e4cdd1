"""Measure a run of several tasks: each checkpoint's weight of every task, and how far its mode has moved."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from inference import results
from inference.engine import memory as memory_of
from inference.measurement.posterior import pieces
from inference.measurement.posterior.derived import by_slot
from inference.measurement.posterior.laplace import MOST_K_HAT
from inference.measurement.references.anchors import NUM_DRAWS, unbatched
from inference.measurement.run.groups import checks_of, coords_of, drawn, stacked
from inference.measurement.run.measured import Measured, measure_each, places_looked_at, samples_at, sizes_of
from inference.measurement.samples import inputs
from inference.measurement.samples.sources import Source
from inference.measurement.tasks import across, checks, climb, derived, law, nuts, words
from inference.measurement.tasks import draws as draws_of
from inference.measurement.tasks.discriminants import check_means, discriminants_of, in_order
from inference.measurement.tasks.prior import TaskPrior
from inference.measurement.tasks.references import TaskReferences, anchor_tasks
from inference.measurement.tasks.scales import scales_of
from inference.measurement.tasks.variables import VARIABLES
from inference.measurement.verdict.checks import independence_of
from inference.measurement.verdict.words import together
from mixture_models.validation import InputError

results.register(**VARIABLES)

# Of kept checkpoints: those of another format are measured again.
_FORMAT = 2


class TaskSettings(NamedTuple):
    """The checked settings of a measurement of several tasks, those of `inference.measure`."""

    seed: int
    method: str
    covariance: str
    tails: str
    shapes: tuple[float, ...]
    displacement_scale: float
    num_draws: int
    max_features: int
    drop_missing: bool
    num_log_likelihood_rows: int
    new_task: str | None
    neither: bool = False


class _Setup(NamedTuple):
    """What is the same for all checkpoints; tasks are in the order of `discriminants.in_order`."""

    names: list[str]
    references: TaskReferences
    given: list[np.ndarray]
    facts: words.Facts
    prior: TaskPrior
    settings: TaskSettings


def measure_tasks(
    samples: Source,
    references: Mapping[str, Source],
    settings: TaskSettings,
    *,
    memory: float,
    keep: str | Path | None,
    progress: bool,
) -> xr.DataTree:
    """Return the posterior of weight, displacement and drift of every task at every checkpoint of a run.

        y ~ (1-ν) Σ_k β_k N(μ_k + Δ_k, Σ_k) + ν N(m, e^(2c) I),   β ~ Dirichlet(a)

    with ν = 0 unless there is a component for neither task (``settings.neither``). What the modes are beside
    the discriminants between the references is no part of the weights' likelihood;
    docs/measurement-model.md describes the law, docs/measurement.md the result.

    Args:
        samples: of the checkpoints.
        references: of three tasks or more, by name.
        settings: checked.
        memory: bytes that a checkpoint may take.
        keep: folder in which finished checkpoints are kept, or None.
        progress: whether to show a progress bar.

    Raises:
        InputError: an unusable input, before anything is computed.
    """
    task_names, num = list(references), len(references)
    memory_of.check_fits("draws", 8.0 * settings.num_draws * num * 8.0, "take fewer (num_draws)")
    checked = inputs.check_tasks(samples, references, drop_missing=settings.drop_missing, memory=memory)
    check_means(dict(zip(task_names, checked.references, strict=True)))
    order = in_order(checked.references)
    given = [checked.references[k] for k in order]
    space = discriminants_of(given, settings.max_features)
    d = space.forward.shape[0]
    if settings.covariance == "unequal" and min(map(len, given)) < space.num + 7:
        raise InputError(
            f"unequal covariances along {space.num} discriminants need {space.num + 7} samples of every "
            f"reference; got {', '.join(map(str, map(len, checked.references)))}"
        )
    sizes = sizes_of(checked, d, settings.method, memory)
    num_rows = min(settings.num_log_likelihood_rows, *(summary.num for summary in checked.summaries))
    settings = settings._replace(num_log_likelihood_rows=num_rows)
    names = [task_names[k] for k in order]
    with jax.enable_x64(True):
        anchored = anchor_tasks(space, settings.covariance, settings.tails)
        facts = words.Facts(
            names, separations(anchored), checks.foreign_shares(anchored), checks.own_share_errors(anchored)
        )
        shapes = np.array(settings.shapes)[order]
        prior = TaskPrior(shapes, settings.displacement_scale)
        setup = _Setup(names, anchored, given, facts, prior, settings)
        told = hashlib.sha256(json.dumps([_FORMAT, names, settings._asdict()]).encode())
        for one in given:
            told.update(np.ascontiguousarray(one).tobytes())
        measured = measure_each(
            checked,
            lambda at: _measured(setup, checked, at, streamed=sizes[at] > memory),
            lambda at: (told.hexdigest(), at, checked.summaries[at].digest),
            keep=keep,
            progress=progress,
        )
    return _tree(measured, task_names, np.argsort(order), checked, setup)


def separations(references: TaskReferences) -> np.ndarray:
    """Return the distances of the references' means, less what the noise of the means adds to them."""
    q, count = references.space.num, len(references.means)
    found = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            apart = references.means[i, :q] - references.means[j, :q]
            within = 0.5 * sum(
                np.cov(references.space.rows[k][:, :q], rowvar=False).reshape(q, q) for k in (i, j)
            )
            noise = references.mean_covariances[i, :q, :q] + references.mean_covariances[j, :q, :q]
            squared = apart @ np.linalg.solve(within, apart) - np.trace(np.linalg.solve(within, noise))
            found[i, j] = np.sqrt(max(squared, 0.0)) if i != j else 0.0
    return found


def _measured(setup: _Setup, checked: inputs.Checked, index: int, *, streamed: bool) -> Measured:
    """Measure one checkpoint."""

    def coordinates() -> Iterator[np.ndarray]:
        for y in checked.pieces(index):
            yield setup.references.space.coordinates(y)

    summary, d = checked.summaries[index], setup.references.means.shape[1]
    rows = pieces.pieces_of(coordinates, summary.num, d, streamed=streamed)
    references, settings = setup.references, setup.settings
    num, q, each = summary.num, references.space.num, settings.num_draws // NUM_DRAWS
    rng = np.random.default_rng([settings.seed, index])
    seen = pieces.narrowed(rows, q)
    mode = climb.find_mode(references.central, setup.prior, seen, neither=settings.neither)
    modes = climb.modes_of_draws(references.draws, setup.prior, seen, mode)
    central = unbatched(references.central)
    unknowns = unbatched(mode.unknowns)
    beside = across.beside_of(references, central, unknowns, rows)
    scales = scales_of(central, setup.prior, mode.quadratic, beside)
    draws = draws_of.draw(references.draws, setup.prior, seen, scales, modes, num=each, rng=rng)
    stats: dict[str, object] = {"num_samples": num, "streamed": int(streamed), "method": "laplace"}
    stats |= {"k_hat": draws.k_hat, "efficiency": draws.efficiency}
    stats |= {"r_hat": np.nan, "ess": np.nan, "divergences": 0}
    doubtful = settings.method == "auto" and not draws.k_hat <= MOST_K_HAT
    if settings.method == "nuts" or (doubtful and not streamed):
        (held,) = seen
        draws, sampled = nuts.sample(references.draws, setup.prior, held, draws, num=each, rng=rng)
        stats |= {"method": "nuts", **sampled}
    line = draws
    draws = across.with_beside(references, rows, draws, rng)
    reported = derived.report(references, draws, rng)
    places = places_looked_at(num, settings.num_log_likelihood_rows, rng)
    y, kept_y, consecutive = samples_at(rows, places)
    prediction = checks.predictive_check(references, draws, y, rng)
    weights = reported.weight.mean(axis=(0, 1))
    stats |= derived.precision_of(references, draws, y, num)._asdict()
    centred = checks.centred(references, draws, consecutive)
    # What belongs to neither task has no reference.
    shares = weights / weights.sum() if settings.neither else weights
    stats |= independence_of(checks.fresh_rows(references), list(shares), y, centred, rng)._asdict()
    stats |= {
        "num_repeated": summary.num_repeated,
        "weight_mean": weights,
        "check_deviation": prediction.deviations,
    }
    stats["unmoved_probability"] = np.mean(draws.scales[..., 0] == 0.0, axis=(0, 1))
    rest = references.space.rest
    stats["deviation_left_out"] = checks.left_out_deviation(rest, setup.given, shares, summary.mean, num)
    shift = draws.unknowns.means[..., :q].mean(axis=(0, 1)) - references.means[:, :q]
    told = words.verdicts(stats, setup.facts, np.linalg.norm(shift, axis=1), references.means.shape[1])
    stats |= {"weight_words": told[0], "drift_words": told[1], "words": together(*told)}
    kept_likelihood = {}
    if settings.num_log_likelihood_rows:
        kept_likelihood["y"] = by_slot(law.pointwise(references.draws, line.unknowns, kept_y[:, :q]))
    return Measured(
        posterior={name: by_slot(array) for name, array in reported._asdict().items()},
        stats={name: np.asarray(value) for name, value in stats.items()},
        observed={"mean": summary.mean, "sd": summary.sd},
        check={"observed": prediction.observed, "replicated": prediction.replicated},
        log_likelihood=kept_likelihood,
    )


# Dims beside checkpoint of what is kept of one.
_DIMS = {
    "weight": ("task",),
    "displacement": ("task", "feature"),
    "task_drift": ("task",),
    "resolution": ("task",),
    "task_information": ("task",),
    "task_reference_share": ("task",),
    "weight_mean": ("task",),
    "unmoved_probability": ("task",),
    "confusion": ("task", "other_task"),
    "check_deviation": ("statistic",),
}


def _tree(
    measured: list[Measured],
    task_names: list[str],
    back: np.ndarray,
    checked: inputs.Checked,
    setup: _Setup,
) -> xr.DataTree:
    """Assemble the result, its tasks in the order in which they were given."""
    settings, references, space = setup.settings, setup.references, setup.references.space
    statistics = [*checks.STATISTICS, *(f"spread beside discriminants, {name}" for name in setup.names)]
    sample = coords_of(checked.samples.names, settings.num_draws)
    coords = sample | {
        "task": setup.names,
        "other_task": setup.names,
        "feature": checked.features if space.names is None else space.names,
        "source_feature": checked.features,
        "coordinate": np.arange(len(space.forward)),
        "statistic": statistics,
    }

    def dataset(variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> xr.Dataset:
        used = {dim for dims, _ in variables.values() for dim in dims}
        found = xr.Dataset(dict(variables), {name: coords[name] for name in coords if name in used})
        return found.isel({dim: back for dim in ("task", "other_task") if dim in used})

    of = {part: stacked(measured, part) for part in ("posterior", "stats", "observed")}
    posterior = dataset(
        {
            name: (("chain", "draw", "checkpoint", *_DIMS[name]), drawn(array))
            for name, array in of["posterior"].items()
        }
    ).assign_coords(reference_draw=sample["reference_draw"])
    if settings.new_task is not None:
        posterior["old_weight"] = posterior["weight"].drop_sel(task=settings.new_task).sum("task")
    stats = {name: (("checkpoint", *_DIMS.get(name, ())), array) for name, array in of["stats"].items()}
    groups = {
        "posterior": posterior,
        "sample_stats": dataset(stats),
        **checks_of(measured, checked.samples.names, statistics),
        "constant_data": dataset(
            {
                "sample_mean": (("checkpoint", "source_feature"), of["observed"]["mean"]),
                "sample_sd": (("checkpoint", "source_feature"), of["observed"]["sd"]),
                "reference_mean": (("task", "source_feature"), np.stack([y.mean(0) for y in setup.given])),
                "reference_separation": (("task", "other_task"), setup.facts.separation),
                "foreign_share": (("task", "other_task"), setup.facts.foreign),
                "own_share_error": (("task",), setup.facts.own_shares[0]),
                "frame_mean": (("task", "coordinate"), references.means),
                "frame_origin": (("source_feature",), space.origin),
                "frame_forward": (("coordinate", "source_feature"), space.forward),
            }
        ),
    }
    tail_dof = references.central.tail_dof
    shown = settings._asdict() | {
        "covariance": references.kind.covariance,
        "tails": "student" if references.kind.heavy_tails else "gaussian",
        "new_task": settings.new_task or "",
        "weight_prior": list(settings.shapes),
    }
    extra = {
        "kind": "measurement of tasks",
        "tail_dof": float("nan") if tail_dof is None else float(tail_dof[0]),
        "num_dropped": checked.num_dropped,
        "num_reference_copies": checked.num_reference_copies,
        "information_kept": space.information_kept,
        "num_discriminants": space.num,
        "references": "".join(
            inputs.digest_of(one)
            for _, one in sorted(zip(task_names, checked.references, strict=True), key=lambda pair: pair[0])
        ),
    }
    return results.assembled(groups, results.provenance(shown) | extra)
