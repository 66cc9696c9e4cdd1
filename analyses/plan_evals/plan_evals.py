"""How many items, answers an item and training seeds does it take to see what was forgotten?

Without a simulation, from the expected information of the answers: `inference.measurement.evals.planning`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Group, RenderableType
from scipy.optimize import brentq
from scipy.special import expit

from analyses.core import outputs, tables
from inference import results
from inference.intervals import interval_probability
from inference.measurement.evals.base_law import BaseLaw, base_law
from inference.measurement.evals.designs import (
    LEAST_ITEMS,
    MOST_ITEMS,
    MOST_SEEDS,
    Design,
    Question,
    cheapest,
)
from inference.measurement.evals.designs import plan as plan_designs
from inference.measurement.evals.planning import MOST_ANSWERS, QUANTITIES, truth_of
from mixture_models.validation import (
    InputError,
    closed_interval,
    fraction,
    integer,
    not_negative,
    number,
    one_of,
    open_interval,
    positive,
)

results.register(
    answers=("answers of the run to each item", "1"),
    seeds=("training seeds of the arm", "1"),
    items=("items of the task", "1"),
    cost=("generated answers, of base and runs", "1"),
    width=("expected width of the interval", "1"),
    power=("probability to see the loss", "1"),
    false_alarm=("probability to see a loss where there is none", "1"),
    items_tried=("items of the task", "1"),
    cost_tried=("generated answers, of base and runs", "1"),
    width_tried=("expected width of the interval", "1"),
    power_tried=("probability to see the loss", "1"),
)

#: Answers an item that are tried.
ANSWERS = (1, 2, 4, 8, 16, 32)

# Where nothing else is said: most items are solved nearly always or nearly never.
_ACCURACY, _ITEM_SD, _POWER = 0.6, 6.0, 0.9

_LEAST_SD, _LARGEST_SD = 0.1, 20.0

# How a sentence calls what is measured, and a loss of it.
_WORDS = {
    "old_weight": ("the old weight", "a mass lost"),
    "drift": ("the drift", "a drift downward"),
    "lost": ("lost", "a mean success lost"),
    "accuracy_change": ("the change of accuracy", "a fall of accuracy"),
}


def run(
    *,
    of: str = "old_weight",
    width: float | None = None,
    power: float | None = None,
    mass_lost: float = 0.05,
    drift: float = 0.0,
    drift_spread: float = 0.0,
    rope: float = 0.01,
    base: Sequence[str] | None = None,
    task: str | None = None,
    metric: Sequence[str] | None = None,
    accuracy: float | None = None,
    item_sd: float | None = None,
    num_choices: int | None = None,
    guess_rate: float | None = None,
    answers: Sequence[int] | None = None,
    base_answers: int | None = None,
    max_items: int = MOST_ITEMS,
    seed_sd: float | None = None,
    seeds: int | None = None,
) -> xr.DataTree:
    """Plan an evaluation of one task: the fewest items for each number of answers, and which is cheapest.

    Args:
        of: what shall be known, one of `planning.QUANTITIES`.
        width: wanted width of its interval; or
        power: wanted probability that its interval lies beyond ``rope``, on the side of a loss; 0.9.
        mass_lost: m that is supposed of a run.
        drift: δ.
        drift_spread: τ.
        rope: a loss of up to this much counts as none.
        base: logs of the base, from which the items' law is estimated.
        task: of the logs, where they hold several.
        metric: of the logs, as `inference.measure_evals` takes it.
        accuracy: of the base, 0.6; it is not given beside a log, nor are the next three.
        item_sd: σ of the items' logits, 6.
        num_choices: answers that every item offers, None for free answers.
        guess_rate: g, in [0, 1/k]; 1/k.
        answers: of a run to each item; all that are tried.
        base_answers: of the base to each item; None: as many as of the run.
        max_items: that there are.
        seed_sd: standard deviation of the quantity between training seeds; None: one run is planned for.
        seeds: training seeds of an arm; None: enough of them.

    Returns:
        DataTree with ``/plan`` over answers, ``/curve`` over (answers, items_tried) and, with ``seed_sd``,
        ``/seeds`` over seeds: of each the cheapest design.

    Raises:
        InputError: an argument out of range, a supposed loss that counts as none, or an unusable log.
    """
    one_of("of", of, QUANTITIES)
    if width is not None and power is not None:
        raise InputError(f"width or power must be wanted, not both; got {width} and {power}")
    goal = "power" if width is None else "width"
    wanted = (
        positive("width", width)
        if width is not None
        else open_interval("power", _POWER if power is None else power)
    )
    supposed = {
        "mass_lost": fraction("mass_lost", mass_lost),
        "drift": closed_interval("drift", drift, -10.0, 10.0),
        "drift_spread": closed_interval("drift_spread", drift_spread, 0.0, 5.0),
    }
    rope = not_negative("rope", rope)
    tried = [integer("answers", num, at_most=MOST_ANSWERS) for num in answers or ANSWERS]
    if len(set(tried)) < len(tried):
        raise InputError(f"answers must be different numbers; got {', '.join(map(str, tried))}")
    if base_answers is not None:
        base_answers = integer("base_answers", base_answers, at_most=MOST_ANSWERS)
    max_items = integer("max_items", max_items, at_least=LEAST_ITEMS, at_most=MOST_ITEMS)
    if seed_sd is not None:
        seed_sd = not_negative("seed_sd", seed_sd)
    if seeds is not None:
        if seed_sd is None:
            raise InputError(f"seeds must come with seed_sd, their spread; got seeds {seeds} alone")
        seeds = integer("seeds", seeds, at_least=2, at_most=MOST_SEEDS)
    law = _law(base, task, metric, accuracy, item_sd, num_choices, guess_rate)
    truth = truth_of(law.item_mean, law.item_sd, law.guess_rate, law.num_choices, *supposed.values())
    question = Question(truth, of, goal, wanted, rope, seed_sd, base_answers)
    found = plan_designs(question, sorted(tried), seeds, max_items)
    best = cheapest(found.by_answers)
    settings = {
        "of": of,
        "goal": goal,
        "wanted": wanted,
        **supposed,
        "rope": rope,
        "value": found.value,
        "base": None if base is None else [str(path) for path in base],
        "task": law.task,
        "accuracy": law.accuracy,
        "item_mean": law.item_mean,
        "item_sd": law.item_sd,
        "num_choices": law.num_choices,
        "guess_rate": law.guess_rate,
        "base_answers": base_answers,
        "max_items": max_items,
        "seed_sd": seed_sd,
        "seeds": found.seeds,
        "logged_items": law.num_items,
        "logged_answers": law.num_answers,
        "cheapest": best.answers if np.isfinite(best.cost) else 0,
    }
    per_item = np.array([(base_answers or num) + found.seeds * num for num in sorted(tried)])
    curve = {
        "cost_tried": (("answers", "items_tried"), per_item[:, None] * found.items),
        "width_tried": (("answers", "items_tried"), found.width),
        "power_tried": (("answers", "items_tried"), found.power),
    }
    groups = {
        "plan": _designs(found.by_answers, "answers"),
        "curve": xr.Dataset(curve, {"answers": sorted(tried), "items_tried": found.items}),
    }
    if found.by_seeds:
        groups["seeds"] = _designs(found.by_seeds, "seeds")
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=results.provenance(settings))}
        | {f"/{name}": results.describe(group) for name, group in groups.items()}
    )


def _designs(designs: Sequence[Design], dim: str) -> xr.Dataset:
    columns = {name: (dim, [getattr(design, name) for design in designs]) for name in Design._fields}
    return xr.Dataset(columns).set_coords(dim)


def _law(
    base: Sequence[str] | None,
    task: str | None,
    metric: Sequence[str] | None,
    accuracy: float | None,
    item_sd: float | None,
    num_choices: int | None,
    guess_rate: float | None,
) -> BaseLaw:
    """Return the law of the base's items: from its log, or as it is supposed."""
    given = {"accuracy": accuracy, "item_sd": item_sd, "num_choices": num_choices, "guess_rate": guess_rate}
    if base:
        beside = [name for name, value in given.items() if value is not None]
        if beside:
            raise InputError(f"{beside[0]} must be given or read from the base's log, not both")
        return base_law(list(base), task=task, metric=metric or ())
    if task is not None or metric:
        raise InputError("task and metric belong to a log of the base; there is none")
    choices = None if num_choices is None else integer("num_choices", num_choices, at_least=2, at_most=1000)
    most = 0.0 if choices is None else 1.0 / choices
    guess = most if guess_rate is None else number("guess_rate", guess_rate)
    if not 0.0 <= guess <= most * (1.0 + 1e-9):
        where = "must come with num_choices" if choices is None else f"must lie in [0, 1/{choices}]"
        raise InputError(f"guess_rate {where}; got {guess:g}")
    share = open_interval("accuracy", _ACCURACY if accuracy is None else accuracy, guess, 1.0)
    sd = closed_interval("item_sd", _ITEM_SD if item_sd is None else item_sd, _LEAST_SD, _LARGEST_SD)
    return BaseLaw(_item_mean(share, sd, guess), sd, min(guess, most), choices, share, 0, 0.0, "")


def _item_mean(accuracy: float, item_sd: float, guess_rate: float) -> float:
    """Return μ, so that g + (1-g) E s(a) is the accuracy."""
    z = np.linspace(-8.0, 8.0, 4001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    known = (accuracy - guess_rate) / (1.0 - guess_rate)
    most = 40.0 + 10.0 * item_sd
    return float(brentq(lambda mean: expit(mean + item_sd * z) @ weights - known, -most, most))


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a number of answers an item: items, cost, width and power."""
    frame = tree["plan"].to_dataset().to_dataframe().reset_index()
    return frame[list(Design._fields)].assign(cheapest=frame["answers"] == tree.attrs["cheapest"])


def table(tree: xr.DataTree) -> RenderableType:
    """Return the plan as a table for the terminal; with training seeds, a second one over them."""
    frame, settings = summary(tree), tree.attrs
    percent = f"{100 * interval_probability():g} %"
    called, loss = _WORDS[settings["of"]]
    size = abs(settings["value"] - QUANTITIES[settings["of"]][0])
    arm = f", arm of {settings['seeds']} seeds" if "seed_sd" in settings else ""
    if settings["goal"] == "power":
        title = f"Plan: see {loss} of {size:.3g} with probability {settings['wanted']:g}{arm}"
        seen = (
            f"Seen: the {percent} interval of {called} leaves out a loss of {settings['rope']:g} and less. "
            + ("" if "seed_sd" in settings else "False alarm: so of a run that is the base itself. ")
        )
    else:
        title = f"Plan: know {called} to {settings['wanted']:g}{arm}"
        seen = f"Width: of the {percent} interval. "
    guess = f", guess rate {settings['guess_rate']:.3g}" if settings["guess_rate"] else ""
    counted = "Cost: generated answers of the base and of "
    counted += f"the {settings['seeds']} runs" if "seed_sd" in settings else "the run"
    caption = (
        f"{seen}Supposed: mass lost {settings['mass_lost']:g}, drift {settings['drift']:g}, drift spread "
        f"{settings['drift_spread']:g}; base {_base_words(settings)} with accuracy "
        f"{settings['accuracy']:.3g}, items' logits of mean {settings['item_mean']:.3g} and sd "
        f"{settings['item_sd']:.3g}{guess}. {counted}. n/a: not with {settings['max_items']:,} items."
    )
    shown = [
        ("items", "items", _whole),
        ("cost", "cost", _whole),
        ("width", "width", tables.plain),
        ("probability\nto see", "power", tables.plain),
        ("false\nalarm", "false_alarm", tables.plain),
    ]
    if settings["goal"] == "width" or "seed_sd" in settings:
        shown = shown[:-1]
    marked = frame.assign(mark=np.where(frame["cheapest"], "cheapest", ""))
    parts = [
        tables.listed(
            marked,
            [("answers\nan item", "answers", _whole), *shown, ("", "mark", lambda row, name: str(row[name]))],
            title=title,
            caption=caption,
        )
    ]
    if "seeds" in tree.children:
        by_seeds = tree["seeds"].to_dataset().to_dataframe().reset_index()
        parts.append(
            tables.listed(
                by_seeds,
                [("training\nseeds", "seeds", _whole), ("answers\nan item", "answers", _answers), *shown],
                title="The cheapest with other numbers of training seeds",
                caption=f"Between seeds {called} has a standard deviation of {settings['seed_sd']:g}.",
            )
        )
    return Group(*parts)


def _base_words(settings: Any) -> str:
    return f"as its log of {settings['task']}" if settings["logged_items"] else "as supposed"


def _answers(row: Any, name: str) -> str:
    return tables.MISSING if np.isnan(row["items"]) else _whole(row, name)


def _whole(row: Any, name: str) -> str:
    return tables.MISSING if np.isnan(row[name]) else f"{row[name]:,.0f}"


def remarks(tree: xr.DataTree) -> list[str]:
    """Return what is to be known beside the table."""
    settings, found = tree.attrs, []
    if not settings["cheapest"]:
        found.append(
            f"No plan reaches it with {settings['max_items']:,} items: ask for less, or try more answers."
        )
    if settings["logged_items"]:
        found.append(
            f"The base's log has {settings['logged_items']:,} items with {settings['logged_answers']:.3g} "
            "answers each; what of the plan is there already need not be generated again."
        )
        if settings["logged_answers"] < 2.0:
            found.append(
                "One answer an item does not tell how the items' logits are spread: their sd is what is held "
                "likely beforehand."
            )
    if "seed_sd" not in settings:
        found.append("The plan is for one run; --seed-sd plans for the method, over its training seeds.")
    return found


def write(tree: xr.DataTree, folder: Path) -> None:
    """Write ``results.zarr``, ``summary.csv`` and the figure into a folder."""
    from analyses.plan_evals.figure import plot

    outputs.write(tree, summary(tree), plot(tree), folder)
