"""The old weight of checkpoints by `inference.measure` and by QuaPy's quantifiers, with draws and the time.

A quantifier learns a classifier of both references and asks in which shares their samples, classified so,
make up those of a checkpoint: the modes of a checkpoint must be those of the references. Its draws are
QuaPy's own bootstrap, `AggregativeBootstrap`, which resamples the classified checkpoint.
"""

import functools
import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import joblib
import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from inference import measure
from inference.intervals import interval_probability
from mixture_models.validation import InputError

Samples = Float[np.ndarray, "sample feature"]


# Of a classifier's probabilities.
_LEAST = 1e-12


class Task(NamedTuple):
    """Checkpoints of one run, and samples of the old and of the new task."""

    checkpoints: Sequence[Samples]
    old: Samples
    new: Samples


class Estimate(NamedTuple):
    """What a method says of the old weight of a checkpoint.

    Attributes:
        draws: of the old weight; their mean is the estimate, and the interval has equal tails.
        seconds: of a processor, with a checkpoint's part of what is done once for all checkpoints of a run.
        word: the verdict's first word, empty where a method has none.
        k_hat: of the draws' importance weights, NaN where there are none.
    """

    draws: Float[np.ndarray, "draw"]
    seconds: float
    word: str = ""
    k_hat: float = float("nan")

    @property
    def mean(self) -> float:
        """The estimate."""
        return float(self.draws.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds of the interval."""
        tail = 0.5 - 0.5 * interval_probability()
        low, high = np.quantile(self.draws, [tail, 1.0 - tail])
        return float(low), float(high)


def massdrift(task: Task, seed: int, num_resamples: int, **settings: Any) -> list[Estimate]:
    """Return what `inference.measure` says of every checkpoint, under these settings of it."""
    start = time.process_time()
    samples = dict(enumerate(task.checkpoints))
    tree = measure(samples, task.old, task.new, seed=seed, progress=False, **settings)
    seconds = (time.process_time() - start) / len(samples)
    draws = tree["posterior"]["old_weight"].stack(sample=("chain", "draw")).transpose("checkpoint", "sample")
    stats = tree["sample_stats"]
    words = [str(word).split(":")[0] for word in stats["weight_words"].to_numpy()]
    k_hat = stats["k_hat"].to_numpy()
    return [
        Estimate(draws.to_numpy()[i], seconds, words[i], float(k_hat[i]))
        for i in range(len(task.checkpoints))
    ]


class _Classifier(LogisticRegression):
    """Logistic regression without probabilities that are rounded to 0 or 1: their logarithm is taken."""

    def predict_proba(self, X: Samples) -> Float[np.ndarray, "sample class"]:
        return np.clip(super().predict_proba(X), _LEAST, 1.0 - _LEAST)


def quantified(task: Task, seed: int, num_resamples: int, *, quantifier: str) -> list[Estimate]:
    """Return what a quantifier of QuaPy says of every checkpoint; it classifies by logistic regression."""
    from quapy.method import aggregative, confidence

    made: Callable[..., Any] = {
        # Calibrated by bias-corrected temperature scaling (Alexandari et al. 2020), unless that fails.
        "EMQ": functools.partial(aggregative.EMQ.EMQ_BCTS, on_calib_error="backup"),
        "ACC": aggregative.ACC,
        "PACC": aggregative.PACC,
        "KDEyML": aggregative.KDEyML,
    }[quantifier]
    features = np.concatenate([task.old, task.new])
    labels = np.repeat([0, 1], [len(task.old), len(task.new)])
    bootstrap = confidence.AggregativeBootstrap(
        made(_Classifier()),
        n_test_samples=num_resamples,
        confidence_level=interval_probability(),
        random_state=seed,
    )
    found = []
    with (
        # QuaPy would start a process a core, whose random numbers no seed determines.
        joblib.parallel_config(backend="sequential"),
        # The search for a calibration tries what has no finite likelihood.
        np.errstate(divide="ignore", invalid="ignore", over="ignore"),
        warnings.catch_warnings(),
    ):
        # What calibrates EMQ imports a module of SciPy that is to go; an EM that has not ended is an
        # estimate too.
        warnings.filterwarnings("ignore", message="scipy.misc", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="the method has reached the maximum")
        start = time.process_time()
        bootstrap.fit(features, labels)
        shared = (time.process_time() - start) / len(task.checkpoints)
        for samples in task.checkpoints:
            start = time.process_time()
            if quantifier == "KDEyML":
                # What it takes is that of QuaPy, which computes the densities of every resample anew.
                bootstrap.quantifier.predict(samples)
                seconds = num_resamples * (time.process_time() - start)
                bootstrap.quantifier.pdf = _remembered(bootstrap.quantifier, samples)
                _, region = bootstrap.predict_conf(samples)
                del bootstrap.quantifier.pdf
            else:
                _, region = bootstrap.predict_conf(samples)
                seconds = time.process_time() - start
            found.append(Estimate(region.samples[:, 0], shared + seconds))
    return found


def _remembered(quantifier: Any, samples: Samples) -> Callable[..., np.ndarray]:
    """Return what gives a KDEyML's densities of resampled rows of a checkpoint, each computed once."""
    posteriors = quantifier.classify(samples)
    known, places = np.unique(posteriors[:, 0], return_index=True)
    tables = [quantifier.pdf(kde, posteriors[places], quantifier.kernel) for kde in quantifier.mix_densities]

    def pdf(kde: Any, posteriors: np.ndarray, kernel: str, log_densities: bool = False) -> np.ndarray:
        own = next(k for k, one in enumerate(quantifier.mix_densities) if one is kde)
        return tables[own][np.searchsorted(known, posteriors[:, 0])]

    return pdf


def check_quapy() -> None:
    """Refuse in one sentence where QuaPy is not installed."""
    if importlib.util.find_spec("quapy") is None:
        raise InputError("quapy must be installed, by `pip install massdrift[rivals]`; it is not")
