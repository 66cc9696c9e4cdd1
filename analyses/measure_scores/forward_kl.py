"""The forward KL of the base from a run beside its weights: columns, cells of the table, and its figure."""

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import checkpoint_axis, crosses, figures, tables
from inference.measurement.verdict.kinds import UNTRUSTED, of_kind

# Variables of the posterior, with the heads of their columns.
_HEADS = {
    "forward_kl": "forward KL\n[nat]",
    "forward_kl_per_token": "a token\n[nat]",
    "reverse_kl": "reverse KL\n[nat]",
}


def columns(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Return what the summary says of divergences, over checkpoints; nothing where they are not measured."""
    posterior, stats = tree["posterior"].to_dataset(), tree["summary"].to_dataset()
    found: dict[str, xr.DataArray] = {}
    for name in (one for one in _HEADS if one in posterior):
        found |= tables.interval_columns(name, posterior[name])
    if found:
        # The mean of the draws is that of the estimate, up to their number.
        found["forward_kl"] = stats["forward_kl_mean"]
        told = ("num_kl_answers", "num_kl_prompts", "kl_k_hat", "kl_effective", "kl_shown", "kl_words")
        found |= {name: stats[name] for name in told if name in stats}
    return found


#: Columns of the table on divergences, and those of them that a checkpoint has.
COLUMNS: list[tables.Column] = [
    *((head, name) for name, head in _HEADS.items()),
    ("verdict:\nKL", "kl_words", tables.said),
]


def caption(tree: xr.DataTree) -> str:
    """Return what the table's caption says of divergences."""
    if "forward_kl" not in tree["posterior"]:
        return ""
    source = str(tree.attrs["sampled_from"])
    return (
        " The forward KL is KL(base ‖ run) of whole answers to prompts of the new task, from answers of the "
        f"{source}; an interval that reaches below 0 does not exclude a KL of 0."
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``forward_kl``: over checkpoints, and the old weight against it."""
    posterior = tree["posterior"].to_dataset()
    if "forward_kl" not in posterior:
        return {}
    bad = of_kind(tree["summary"]["kl_words"], UNTRUSTED)
    with figures.style():
        against = "old_weight" in posterior
        figure, panels = plt.subplots(1, 1 + against, figsize=(5.2 * (1 + against), 4.4), squeeze=False)
        checkpoint_axis.draw(panels[0, 0], posterior, ["forward_kl"], bad)
        panels[0, 0].set_ylabel(figures.label(posterior["forward_kl"]))
        if against:
            axes = panels[0, 1]
            looks = figures.line_style(["forward_kl"])
            crosses.draw(axes, posterior, ("forward_kl", "old_weight"), looks["forward_kl"], bad)
            axes.set_ylim(0.0, 1.0)
            axes.set_xlabel(axes.get_xlabel() + "\nfarther from the base →")
        figure.suptitle(f"How far is the base from the run, on the new task's prompts?\n{figures.points()}")
        if bad.any():
            panels[0, 0].legend()
    return {"forward_kl": figure}
