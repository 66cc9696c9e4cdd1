"""A run that was measured by its samples, and the forward KL that scores of the same checkpoints have."""

import numpy as np
import xarray as xr

from inference import results
from inference.comparison.runs import DISTANCE
from mixture_models.validation import InputError

_WORDS = "kl_words"


def with_forward_kl(measured: xr.DataTree, scored: xr.DataTree) -> xr.DataTree:
    """Return a measurement of samples with the forward KL of the same checkpoints beside weight and drift.

    The two are measured from different samples, and so are independent: the forward KL's draws are its
    quantiles, in an order of their own.

    Args:
        measured: result of `inference.measure` or `inference.measure_generations`.
        scored: result of `inference.measure_scores` with answers, of at least the same checkpoints.

    Returns:
        The measurement, with ``forward_kl`` [nat] in ``/posterior`` and its verdict ``kl_words`` in
        ``/sample_stats``; `inference.compare_runs` compares it too.

    Raises:
        InputError: another result in the place of either, or a checkpoint without a forward KL.
    """
    kind = str(measured.attrs.get("kind"))
    if kind not in ("measurement", "measurement of tasks"):
        raise InputError(f"measured must be a measurement of samples; got one of kind {kind}")
    if "posterior" not in scored.children or DISTANCE not in scored["posterior"]:
        raise InputError("scored must be a measurement of scores with answers; it has no forward KL")
    posterior, stats = (measured[name].to_dataset() for name in ("posterior", "sample_stats"))
    places = {str(name): i for i, name in enumerate(scored["posterior"]["checkpoint"].to_numpy())}
    names = [str(name) for name in posterior["checkpoint"].to_numpy()]
    if missing := [name for name in names if name not in places]:
        raise InputError(
            f"the forward KL must be known of every measured checkpoint; that of {missing[0]} is not, of "
            f"{', '.join(places)} it is"
        )
    at = [places[name] for name in names]
    known = scored["posterior"][DISTANCE].isel(checkpoint=at).stack(sample=("chain", "draw"))
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    shares = (np.arange(shape[0] * shape[1]) + 0.5) / (shape[0] * shape[1])
    drawn = np.quantile(known.transpose("sample", "checkpoint").to_numpy(), shares, axis=0)
    drawn = np.random.default_rng(0).permuted(drawn, axis=0).reshape(*shape, len(at))
    words = scored["summary"][_WORDS].to_numpy()[at]
    return measured.assign(
        {
            "posterior": xr.DataTree(
                results.describe(posterior.assign({DISTANCE: (("chain", "draw", "checkpoint"), drawn)}))
            ),
            "sample_stats": xr.DataTree(results.describe(stats.assign({_WORDS: ("checkpoint", words)}))),
        }
    )
