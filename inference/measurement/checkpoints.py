"""Measure a run: for each checkpoint how much old behaviour is left and how far both modes have moved."""

import hashlib
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from inference import results
from inference.engine import memory as memory_of
from inference.engine.blas import on_one_thread
from inference.measurement.checkpoint import Checkpoint, Setup, measure_checkpoint
from inference.measurement.layout import tree_of
from inference.measurement.posterior import pieces
from inference.measurement.posterior.choice import choose_kind
from inference.measurement.posterior.prior import Prior
from inference.measurement.references.anchors import COVARIANCES as KINDS
from inference.measurement.references.anchors import NUM_DRAWS, anchor
from inference.measurement.references.contamination import contamination_of
from inference.measurement.references.projection import project
from inference.measurement.run.groups import CHAINS
from inference.measurement.run.measured import Measured, measure_each, sizes_of
from inference.measurement.samples import inputs, stored
from inference.measurement.samples.labels import Groups, Labels, Prompts, group_names, groups_of, numbered
from inference.measurement.samples.references import check_own_covariances
from inference.measurement.samples.sources import Source
from inference.measurement.scores.measure_scores import prior_shapes
from inference.measurement.tasks.measure_tasks import TaskSettings, measure_tasks
from inference.measurement.tasks.names import check_names, dirichlet_shapes, named_references
from inference.measurement.tasks.references import COVARIANCES as OF_TASKS
from inference.measurement.tasks.two import by_task, in_roles
from inference.measurement.variables import VARIABLES
from mixture_models.validation import InputError, flag, integer, one_of, positive

results.register(**VARIABLES)

#: How the posterior is computed.
METHODS = ("auto", "laplace", "nuts")

#: Of modes' covariances and tails.
COVARIANCES, TAILS = ("auto", *KINDS), ("auto", "gaussian", "student")


@on_one_thread
def measure(
    samples: Source,
    old_reference: Source | Mapping[str, Source],
    new_reference: Source | None = None,
    *,
    new_task: str | None = None,
    seed: int = 0,
    method: str = "auto",
    covariance: str = "auto",
    tails: str = "auto",
    neither: bool = False,
    weight_prior: Sequence[float] = (1.0, 1.0),
    displacement_scale: float = 0.5,
    num_draws: int = 1000,
    max_features: int = 64,
    drop_missing: bool = False,
    num_log_likelihood_rows: int = 0,
    memory: float | None = None,
    keep: str | Path | None = None,
    progress: bool = True,
    prompts: Labels = None,
    old_prompts: Labels = None,
    new_prompts: Labels = None,
    prompt_groups: Groups | None = None,
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
        old_reference: samples of the old task, shape (sample, feature), or a file; or the references of 2 to
            20 tasks by name, which may be ``{"old": …, "new": …}``. Then there is no ``new_reference``.
        new_reference: samples of the new task, likewise.
        new_task: of references by name the new one; None for ``"new"`` if there is one.
        seed: of all random numbers.
        method: ``"laplace"`` (fast), ``"nuts"``, or ``"auto"``: fast, and NUTS for the checkpoints whose k̂
            says that the fast path cannot be trusted and whose samples fit into memory.
        covariance: ``"shared"`` by both modes; ``"axis"``: of each mode its own shape along the axis between
            the references, and across it no claim but means; ``"proportional"``; ``"unequal"``; or
            ``"auto"``: by held-out references, ``"axis"`` unless another is clearly better.
        tails: ``"gaussian"``, ``"student"`` (Student-t modes, their degrees of freedom fitted to the
            references), or ``"auto"`` by BIC.
        neither: whether a further, broad component takes samples that belong to none of the tasks.
        weight_prior: shapes (a, b) of the Beta prior of the old share, each at least 1; with references by
            name those of the Dirichlet prior, one a task, (1, 1) for a uniform one.
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
        prompts: labels of the prompts that samples come from: a mapping or list of labels a checkpoint, shape
            (checkpoint, sample), or (sample,) of one checkpoint; None for those of the data (a column,
            variable or coordinate ``prompt``), False to ignore these, also the references'. Where prompts
            repeat, each has its own old share and shift along the axis, and intervals are of new prompts.
        old_prompts: of the old reference, likewise; of a reference without, samples count as independent.
        new_prompts: of the new reference.
        prompt_groups: from prompt to the name of its group, whose mean old share is ``group_weight``.

    Returns:
        DataTree with ``/posterior`` (``old_weight``, ``new_weight``, ``old_displacement``,
        ``new_displacement``, ``old_drift``, ``new_gap``), ``/sample_stats`` (how each checkpoint was
        computed, resolutions, diagnostics, and the verdict in ``words``, of the weight alone in
        ``weight_words`` and of the drift in ``drift_words``), ``/observed_data`` (a summary),
        ``/posterior_predictive``, ``/constant_data``, and ``/log_likelihood`` on demand; described in
        docs/measurement.md. With references by name other than old and new it holds ``weight``,
        ``displacement`` and ``task_drift`` with a dim ``task``, and ``old_weight``, the sum over the tasks
        that are not new, where one is. With prompts it also holds ``prompt_spread`` and ``prompt_shift``.

    Raises:
        InputError: an unusable input, before anything is computed.

    Source: derivation in docs/measurement-model.md.
    """
    named = named_references(old_reference, new_reference, new_task)
    if named is not None and set(named) == {"old", "new"} and new_task in (None, "new"):
        old_reference, new_reference, named = named["old"], named["new"], None
    one_of("method", method, METHODS)
    one_of("covariance", covariance, COVARIANCES)
    one_of("tails", tails, TAILS)
    many = named is not None and len(named) > 2
    shapes = dirichlet_shapes(weight_prior, len(named)) if named and many else prior_shapes(weight_prior)
    scale = positive("displacement_scale", displacement_scale)
    seed = integer("seed", seed, at_least=0)
    step = CHAINS * NUM_DRAWS
    num_draws = -(-integer("num_draws", num_draws, at_least=step) // step) * step
    # Means, displacements and scales of every draw of a checkpoint; before the data are read.
    memory_of.check_fits("draws", 8.0 * 16.0 * num_draws, "take fewer (num_draws)")
    num_rows = integer("num_log_likelihood_rows", num_log_likelihood_rows, at_least=0, at_most=10_000)
    max_features = integer("max_features", max_features)
    limit = stored.default_memory() if memory is None else positive("memory", memory)
    neither, drop_missing = flag("neither", neither), flag("drop_missing", drop_missing)
    if named is not None and many:
        one_of("covariance of three tasks or more", covariance, ("auto", *OF_TASKS))
        if any(not _is_default(given) for given in (prompts, old_prompts, new_prompts, prompt_groups)):
            raise InputError(
                f"prompts go with two references, an old and a new one; got {len(named)} references"
            )
        chosen = TaskSettings(
            seed=seed,
            method=method,
            covariance=covariance,
            tails=tails,
            shapes=shapes,
            displacement_scale=scale,
            num_draws=num_draws,
            max_features=max_features,
            drop_missing=drop_missing,
            num_log_likelihood_rows=num_rows,
            new_task=check_names(named, new_task),
            neither=neither,
        )
        return measure_tasks(samples, named, chosen, memory=limit, keep=keep, progress=progress)
    if named is not None:
        old_reference, new_reference, shapes = in_roles(named, new_task, shapes)
    prior = Prior((shapes[0], shapes[1]), scale)
    own: tuple[Labels, Labels] = (False, False) if prompts is False else (old_prompts, new_prompts)
    checked = inputs.check(
        samples,
        old_reference,
        new_reference,
        drop_missing=drop_missing,
        memory=limit,
        prompts=(prompts, *own),
    )
    names_of_groups = _names_of_groups(checked, prompt_groups)
    projection = project(checked.old, checked.new, max_features)
    old, new = projection.old, projection.new
    check_own_covariances(old, new)
    sizes = sizes_of(checked, old.shape[1], method, limit)
    if neither and covariance == "axis":
        raise InputError(
            "a third component is seen in all coordinates, not along the axis alone; got neither "
            "with the covariance axis"
        )
    if checked.prompts is not None:
        _check_goes_with_prompts(checked, covariance, neither=neither, streamed=max(sizes) > limit)
        covariance = "axis"
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
        of_references: list[np.ndarray | None] | None = None
        if checked.prompts is not None:
            of_references = [None if p is None else numbered(p) for p in checked.reference_prompts]
            settings |= {"prompts": True, "prompt_groups": len(names_of_groups)}
        references = anchor(old, new, kind, worth=projection.worth, prompts=of_references)
        setup = Setup(
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
        facts = _facts(settings, checked)

        def prompted(index: int) -> Prompts | None:
            return _prompts(checked, index, prompt_groups, names_of_groups)

        measured = measure_each(
            checked,
            lambda at: _measured(setup, checked, at, streamed=sizes[at] > limit, prompts=prompted(at)),
            lambda at: (facts, at, checked.summaries[at].digest, *_digest_of(prompted(at))),
            keep=keep,
            progress=progress,
        )
    tail_dof = references.central.tail_dof
    extra = {
        "tail_dof": float("nan") if tail_dof is None else float(tail_dof[0]),
        "num_dropped": checked.num_dropped,
        "num_reference_copies": checked.num_reference_copies,
        "information_kept": projection.information_kept,
        "separation": references.separation,
        "references": inputs.digest_of(checked.old) + inputs.digest_of(checked.new),
    }
    tree = tree_of(measured, checked, setup, settings, extra, names_of_groups)
    return tree if named is None else by_task(tree, named, new_task)


def _is_default(labels: object) -> bool:
    return labels is None or labels is False


def _check_goes_with_prompts(
    checked: inputs.Checked, covariance: str, *, neither: bool, streamed: bool
) -> None:
    """Refuse what cannot be measured with prompts.

    Raises:
        InputError: another covariance than axis, a third component, or samples that are streamed.
    """
    ignored = "or ignore them (prompts=False)"
    if covariance not in ("auto", "axis"):
        raise InputError(f"with prompts the covariance is axis, {ignored}; got {covariance}")
    if neither:
        raise InputError(f"prompts go with the two modes alone, {ignored}; got neither")
    if streamed:
        raise InputError(f"with prompts every checkpoint must fit into memory, {ignored}")


def _names_of_groups(checked: inputs.Checked, groups: Groups | None) -> list[Hashable]:
    if groups is None:
        return []
    if checked.prompts is None:
        raise InputError("prompt_groups go with prompts that have several samples; got none")
    of_samples = checked.prompts
    return group_names(groups, lambda: {one for labels in of_samples for one in labels})


def _prompts(
    checked: inputs.Checked,
    index: int,
    groups: Groups | None,
    names: list[Hashable],
) -> Prompts | None:
    if checked.prompts is None:
        return None
    labels = checked.prompts[index]
    return Prompts(numbered(labels), groups_of(labels, groups, names))


def _digest_of(prompts: Prompts | None) -> tuple[str, ...]:
    """Return what stands for the prompts of a checkpoint."""
    if prompts is None:
        return ()
    digest = hashlib.sha256(np.ascontiguousarray(prompts.codes).tobytes())
    if prompts.groups is not None:
        digest.update(prompts.groups.tobytes())
    return (digest.hexdigest(),)


def _measured(
    setup: Setup, checked: inputs.Checked, index: int, *, streamed: bool, prompts: Prompts | None
) -> Measured:
    """Measure one checkpoint, its samples in the frame."""

    def in_frame() -> Iterator[np.ndarray]:
        for y in checked.pieces(index):
            yield setup.references.frame.coordinates(setup.projection.apply(y))

    num, d = checked.summaries[index].num, setup.references.old.shape[1]
    rows = pieces.pieces_of(in_frame, num, d, streamed=streamed)
    return measure_checkpoint(setup, Checkpoint(num, rows, streamed, prompts), checked, index)


# Of kept checkpoints: those of another format are measured again.
_FORMAT = 3


def _facts(settings: dict[str, object], checked: inputs.Checked) -> str:
    """Return what stands for the settings and the references."""
    common = hashlib.sha256(json.dumps(settings | {"format": _FORMAT}, sort_keys=True).encode())
    for array in (checked.old, checked.new):
        common.update(np.ascontiguousarray(array).tobytes())
    for labels in checked.reference_prompts:
        common.update(b"" if labels is None else np.ascontiguousarray(numbered(labels)).tobytes())
    return common.hexdigest()
