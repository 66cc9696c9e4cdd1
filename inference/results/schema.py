"""The names of a result's variables, with their long names and units, registered by whoever makes them."""

import xarray as xr

from mixture_models import metrics

#: Version of the layout that `inference.open` reads.
LAYOUT = 1

_LONG_NAME_AND_UNITS: dict[str, tuple[str, str]] = {}


def register(**variables: tuple[str, str]) -> None:
    """Give variables of the layout their long name and units, for `describe`.

    Args:
        variables: by name, (long name, units); units are ``"1"`` where there are none.

    Raises:
        ValueError: a name that is registered with another meaning.
    """
    for name, meaning in variables.items():
        if _LONG_NAME_AND_UNITS.setdefault(name, meaning) != meaning:
            raise ValueError(f"{name} must keep its meaning {_LONG_NAME_AND_UNITS[name]}; got {meaning}")


#: What is recorded of a learner.
register(**metrics.VARIABLES)

#: Names that several results share: dims, settings, diagnostics.
register(
    method=("training method", "1"),
    learning_rate=("learning rate", "1"),
    loss=("divergence, minibatch estimate", "nat"),
    forward_kl=("forward KL, KL(base ‖ trained)", "nat"),
    old_drift_bound=("bound of the flow's old drift", "Mahalanobis"),
    integration_error=("estimated error of the integrals", "1"),
    num_samples=("samples of the checkpoint", "1"),
    words=("what a reader must know", "1"),
    k_hat=("Pareto shape of the importance weights, k-hat", "1"),
    r_hat=("largest R-hat", "1"),
    ess=("smallest effective sample size", "1"),
    divergences=("divergent transitions", "1"),
    kind=("kind of answers: repeats, or one of several choices", "1"),
    mode=("mode", "1"),
    task=("task", "1"),
    sample=("sample", "1"),
    checkpoint=("checkpoint", "1"),
    diverged_step=("first step out of the sensible range, or not finite, -1: none", "step"),
    chain=("chain", "1"),
    draw=("draw: a replicate training, or one of the posterior", "1"),
    step=("training step", "step"),
    time=("time, steps times learning rate", "1"),
    setting=("setting", "1"),
    separation=("separation of the modes, δ(μ_o, μ_n)", "Mahalanobis"),
    peak_old_drift=("peak old drift", "Mahalanobis"),
    replay=("replayed share, λ", "1"),
    ci_bound=("bound of the interval", "1"),
    batch_size=("batch size", "1"),
    seed=("seed of a run", "1"),
    feature=("coordinate of a sample", "1"),
    feature_bis=("coordinate of a sample", "1"),
    objective=("post-training objective", "1"),
    objective_model=("what the learner is pulled toward", "1"),
    sampling_law=("whose samples are seen", "1"),
    divergence=("divergence that is minimised", "1"),
    direction=("direction of the divergence", "1"),
)


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """Give every variable and coordinate of the layout its ``long_name`` and ``units``, in place."""
    for name, variable in dataset.variables.items():
        owner, _, field = str(name).partition("_")
        if name in _LONG_NAME_AND_UNITS:
            variable.attrs["long_name"], variable.attrs["units"] = _LONG_NAME_AND_UNITS[str(name)]
        elif field in _LONG_NAME_AND_UNITS:
            long_name, variable.attrs["units"] = _LONG_NAME_AND_UNITS[field]
            variable.attrs["long_name"] = f"{owner}: {long_name}"
    return dataset


def attributes_of(name: str) -> dict[str, str]:
    """Return ``long_name`` and ``units`` of a variable of the layout, nothing of another one."""
    return dict(zip(("long_name", "units"), _LONG_NAME_AND_UNITS.get(name, ()), strict=False))
