"""The figure of `benchmarks.rivals`: bias and coverage of every method, a line a kind of checkpoints."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from analyses.core import figures
from inference.intervals import interval_probability

# Of a line the part that its methods take.
_HEIGHT = 0.7


def weights(table: pd.DataFrame, folder: Path) -> None:
    """Draw bias and coverage from the table of `benchmarks.rivals weight` into a folder.

    Lines are intervals: of the bias two standard errors to both sides, of the coverage 95 % by the Beta
    posterior.
    """
    settings, names = list(dict.fromkeys(table["setting"])), list(dict.fromkeys(table["method"]))
    looks = figures.line_style(names)
    with figures.style():
        figure, axes = plt.subplots(1, 2, figsize=(10.0, 1.6 + 0.5 * len(settings)), sharey=True)
        for place, name in enumerate(names):
            own = table[table["method"] == name]
            y = own["setting"].map(settings.index).to_numpy()
            y = y + _HEIGHT * ((place + 0.5) / len(names) - 0.5)
            look = {key: looks[name][key] for key in ("color", "marker")}
            bias, error = own["bias"].to_numpy(), own["bias_error"].to_numpy()
            axes[0].errorbar(bias, y, xerr=2.0 * error, linestyle="", markersize=4, label=name, **look)
            coverage, num = own["coverage"].to_numpy(), own["checkpoints"].to_numpy()
            held = np.round(coverage * num)
            law = stats.beta(0.5 + held, 0.5 + num - held)
            ends = np.abs(
                np.stack([np.minimum(law.ppf(0.025), coverage), np.maximum(law.ppf(0.975), coverage)])
                - coverage
            )
            axes[1].errorbar(coverage, y, xerr=ends, linestyle="", markersize=4, **look)
        axes[0].axvline(0.0, color="black", linewidth=0.8)
        axes[1].axvline(interval_probability(), color="black", linewidth=0.8)
        axes[0].set(
            xlabel="bias of the old weight, ± 2 standard errors",
            yticks=np.arange(len(settings)),
            yticklabels=settings,
        )
        axes[0].invert_yaxis()
        axes[1].set(
            xlabel=f"coverage of {100 * interval_probability():.0f} % intervals",
            xlim=(-0.03, 1.03),
        )
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names))
        figures.save(figure, folder, "rivals")
