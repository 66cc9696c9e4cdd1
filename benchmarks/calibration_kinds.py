"""Kinds of data on and off the measurement's model, for its calibration.

`KINDS` is the registry; `benchmarks.calibration_runs` measures its cases.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.calibration_cases import (
    Case,
    Copies,
    Range,
    Recipe,
    breast_cancer,
    digits,
    labelled,
    two_modes,
    wine,
)
from benchmarks.calibration_modes import (
    Shape,
    anisotropic,
    beside,
    beyond,
    clipped,
    clusters,
    gamma,
    gaussian,
    lognormal,
    moved,
    moved_along,
    one_sided,
    quantised,
    student,
    unmoved,
)


class Kind(NamedTuple):
    """A kind of data: its name, what draws a case of it, and whether the measurement's model holds."""

    name: str
    draw: Callable[[np.random.Generator], Case]
    on_model: bool


def _kind(name: str, on_model: bool = False, **settings: Any) -> Kind:
    recipe = Recipe(**settings)
    return Kind(name, functools.partial(two_modes, recipe=recipe, on_model=on_model), on_model)


def _both(shape: Shape) -> dict[str, Any]:
    return {"old": shape, "new": shape}


def _weight(value: float) -> tuple[Range, ...]:
    return ((value, value),)


def _on_model() -> list[Kind]:
    """Return the kinds for which the measurement's model holds."""
    t5, t3 = (functools.partial(student, dof=dof) for dof in (5.0, 3.0))
    kinds = [_kind(f"d = {d}", True, dimension=d) for d in (2, 8, 16, 32, 64, 128, 384)]
    kinds += [
        _kind(f"old weight {w}", True, old_weights=_weight(w)) for w in (0.01, 0.02, 0.05, 0.5, 0.95, 0.99)
    ]
    kinds += [_kind(f"{n} samples", True, num_samples=n) for n in (50, 200, 2000, 20_000)]
    kinds += [
        _kind(f"references of {n} and {m}", True, num_references=(n, m))
        for n, m in ((100, 100), (200, 200), (1000, 1000), (5000, 5000), (100, 2000), (2000, 100))
    ]
    kinds += [_kind(f"separation {s:g}", True, separation=(s, s)) for s in (1.5, 2.0, 4.0, 6.0)]
    kinds += [_kind(f"moved, d = {d}", True, dimension=d, move=moved) for d in (2, 8, 32)]
    kinds += [_kind(f"nothing moved, d = {d}", True, dimension=d, move=unmoved) for d in (2, 8, 32)]
    kinds += [
        _kind(f"old spread {s:g} of the new", True, old=functools.partial(gaussian, scale=s))
        for s in (0.5, 0.8, 1.15, 1.3, 2.0)
    ]
    return [
        *kinds,
        _kind("moved along the axis", True, move=moved_along),
        _kind("Student-t 5", True, **_both(t5)),
        _kind("Student-t 3", True, **_both(t3)),
        _kind("Student-t 5, moved", True, move=moved, **_both(t5)),
        _kind("rotated covariances", True, **_both(anisotropic)),
        _kind("rotated covariances, d = 2", True, dimension=2, **_both(anisotropic)),
        _kind("near-collinear features", True, scales=(1e-5, 1.0)),
        _kind("references shifted by 0.2", True, reference_shift=0.2, move=unmoved),
        _kind("references hardly apart", True, separation=(0.12, 0.12), move=unmoved),
        _kind("two checkpoints, weights apart", True, old_weights=((0.6, 0.9), (0.1, 0.4))),
        _kind("two checkpoints, weights alike", True, old_weights=((0.4, 0.6), (0.4, 0.6))),
        _kind(
            "two checkpoints, references of 100",
            True,
            old_weights=((0.5, 0.9), (0.1, 0.5)),
            num_references=(100, 100),
        ),
    ]


def _spread_in_samples() -> list[Kind]:
    """Return kinds whose checkpoints spread otherwise than their references."""
    return [
        _kind(f"{words} spread {s:g} of the references", spread=(s if old else 1.0, s if new else 1.0))
        for words, old, new in (("old", True, False), ("new", False, True), ("both", True, True))
        for s in (0.5, 0.8, 1.15, 1.3, 2.0)
    ]


def _shapes() -> list[Kind]:
    """Return kinds whose modes are not Gaussian."""
    kinds = [
        _kind(f"log-normal {s:g}", **_both(functools.partial(lognormal, sigma=s))) for s in (0.1, 0.3, 0.6)
    ]
    kinds += [_kind(f"gamma {k:g}", **_both(functools.partial(gamma, shape=k))) for k in (2.0, 8.0)]
    toward, away = (functools.partial(one_sided, side=side) for side in (1.0, -1.0))
    kinds += [
        _kind("old tail toward the new", old=toward),
        _kind("old tail away from the new", old=away),
        _kind("both tails inward", old=toward, new=away),
        _kind("both tails to one side", **_both(toward)),
        _kind("old Student-t 3, new Gaussian", old=functools.partial(student, dof=3.0)),
    ]
    for k in (2, 3):
        shape = functools.partial(clusters, num=k, radius=1.5)
        kinds += [
            _kind(f"{k} clusters, old", old=shape),
            _kind(f"{k} clusters, new", new=shape),
            _kind(f"{k} clusters, both", **_both(shape)),
        ]
    four = functools.partial(clusters, num=4, radius=3.0, across=True)
    return [
        *kinds,
        _kind("4 old tasks, all kept", old=four),
        _kind("4 old tasks, 3 lost", old=four, lost=True, move=unmoved),
    ]


def _strangers() -> list[Kind]:
    """Return kinds with samples that belong elsewhere, or references that are of another day."""
    kinds = [
        _kind(f"third {words} {share:.0%}", third=(share, place))
        for words, place in (("beside the axis", beside), ("on the axis, beyond", beyond))
        for share in (0.01, 0.02, 0.05, 0.1)
    ]
    kinds += [
        _kind(f"contaminated {words}", contamination=shares)
        for words, shares in (
            ("old reference", (0.05, 0.0)),
            ("new reference", (0.0, 0.05)),
            ("references", (0.05, 0.05)),
        )
    ]
    return [
        *kinds,
        _kind("references' covariance off by 10 %", reference_drift=0.1),
        _kind("references shifted, covariance off", reference_shift=0.2, reference_drift=0.1, move=unmoved),
    ]


def _dependent() -> list[Kind]:
    """Return kinds whose samples are not independent, or not continuous."""
    five, rows = Copies(5, 5, 0.01), Copies(2, 3)
    return [
        _kind("duplicated rows", copies=rows),
        _kind("duplicated rows, shuffled", copies=rows._replace(shuffled=True)),
        _kind("duplicated reference rows", reference_copies=rows),
        _kind("five near-identical a prompt", copies=five),
        _kind("five near-identical a prompt, shuffled", copies=five._replace(shuffled=True)),
        _kind("five near-identical a prompt, references too", copies=five, reference_copies=five),
        _kind("five correlated a prompt", correlated=True),
        _kind("quantised features", features=quantised, move=unmoved),
        _kind("clipped features", features=clipped, move=unmoved),
    ]


def _real() -> list[Kind]:
    """Return kinds of real labelled data."""
    return [
        Kind(f"real {load.__name__}", functools.partial(labelled, load=load, num_samples=num), False)
        for load, num in ((digits, 400), (wine, 35), (breast_cancer, 100))
    ]


#: All kinds.
KINDS = [*_on_model(), *_spread_in_samples(), *_shapes(), *_strangers(), *_dependent(), *_real()]
