"""How many items, answers an item and training seeds does it take to see what was forgotten?

Without a simulation, from the expected information of the answers: `inference.measurement.evals.planning`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Group, RenderableType
from scipy.optimize import brentq
from scipy.special import expit

from analyses.core import outputs, tables
from analyses.core.settings import BaseSettings, each, setting, text, texts
from inference import results
from inference.intervals import interval_percent
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

# Where nothing else is said: most items are solved nearly always or nearly never.
_ACCURACY, _ITEM_SD, _POWER = 0.6, 6.0, 0.9

# What a log says of the base's items.
_OF_ITEMS = ("accuracy", "item_sd", "num_choices", "guess_rate")

# How a sentence calls what is measured, and a loss of it.
_WORDS = {
    "old_weight": ("the old weight", "a mass lost"),
    "drift": ("the drift", "a drift downward"),
    "lost": ("lost", "a mean success lost"),
    "accuracy_change": ("the change of accuracy", "a fall of accuracy"),
}


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`: what is wanted, what is supposed of a run, and the base's items."""

    of: str = setting(
        partial(one_of, known=QUANTITIES),
        "What shall be known: old_weight, drift, lost or accuracy_change.",
        "old_weight",
    )
    width: float | None = setting(positive, "Wanted width of its interval.", None)
    power: float | None = setting(
        open_interval, "Or wanted probability that its interval shows a loss.", None, show="0.9"
    )
    mass_lost: float = setting(fraction, "Supposed mass lost of a run, m.", 0.05)
    drift: float = setting(
        partial(closed_interval, low=-10.0, high=10.0), "Supposed drift of the items' logits.", 0.0
    )
    drift_spread: float = setting(
        partial(closed_interval, high=5.0), "Supposed spread of it over items.", 0.0
    )
    rope: float = setting(not_negative, "A loss of up to this much counts as none.", 0.01)
    base: tuple[str, ...] = setting(
        texts, "Log of the base, from which its items are known; may be repeated.", ()
    )
    task: str | None = setting(text, "Task of the log that is planned for.", None, show="its only one")
    metric: tuple[str, ...] = setting(
        texts, "Metric of the log to read; may be repeated.", (), show="as evals"
    )
    accuracy: float | None = setting(open_interval, "The base's accuracy; or a log of it.", None, show="0.6")
    item_sd: float | None = setting(
        partial(closed_interval, low=0.1, high=20.0),
        "Standard deviation of items' logits; or a log of the base.",
        None,
        show="6.0",
    )
    num_choices: int | None = setting(
        partial(integer, at_least=2, at_most=1000),
        "Answers that every item offers.",
        None,
        show="free answers",
    )
    guess_rate: float | None = setting(number, "Probability of a lucky guess.", None, show="1/choices")
    answers: tuple[int, ...] = setting(
        each(partial(integer, at_most=MOST_ANSWERS)),
        "Answers an item to try; may be repeated.",
        (1, 2, 4, 8, 16, 32),
    )
    base_answers: int | None = setting(
        partial(integer, at_most=MOST_ANSWERS),
        "Answers of the base to each item.",
        None,
        show="as of the run",
    )
    max_items: int = setting(
        partial(integer, at_least=LEAST_ITEMS, at_most=MOST_ITEMS), "Items that there are.", MOST_ITEMS
    )
    seed_sd: float | None = setting(
        not_negative, "Standard deviation between training seeds; plans for the arm.", None, show="one run"
    )
    seeds: int | None = setting(
        partial(integer, at_least=2, at_most=MOST_SEEDS), "Training seeds of the arm.", None, show="enough"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and self.power is not None:
            raise InputError(f"width or power must be wanted, not both; got {self.width} and {self.power}")
        if len(set(self.answers)) < len(self.answers):
            raise InputError(f"answers must be different numbers; got {', '.join(map(str, self.answers))}")
        if self.seeds is not None and self.seed_sd is None:
            raise InputError(f"seeds must come with seed_sd, their spread; got seeds {self.seeds} alone")
        items = [name for name in _OF_ITEMS if getattr(self, name) is not None]
        if self.base and items:
            raise InputError(f"{items[0]} must be given or read from the base's log, not both")
        if not self.base and (self.task is not None or self.metric):
            raise InputError("task and metric belong to a log of the base; there is none")


def run(settings: Settings) -> xr.DataTree:
    """Plan an evaluation of one task: the fewest items for each number of answers, and which is cheapest.

    Returns:
        DataTree with ``/plan`` over answers, ``/curve`` over (answers, items_tried) and, with ``seed_sd``,
        ``/seeds`` over seeds: of each the cheapest design.

    Raises:
        InputError: a supposed loss that counts as none, or an unusable log.
    """
    goal, wanted = (
        ("power", settings.power or _POWER) if settings.width is None else ("width", settings.width)
    )
    supposed = (settings.mass_lost, settings.drift, settings.drift_spread)
    tried, base_answers = sorted(settings.answers), settings.base_answers
    law = _law(settings)
    truth = truth_of(law.item_mean, law.item_sd, law.guess_rate, law.num_choices, *supposed)
    question = Question(
        truth, settings.of, goal, wanted, settings.rope, settings.seed_sd, settings.base_answers
    )
    found = plan_designs(question, tried, settings.seeds, settings.max_items)
    best = cheapest(found.by_answers)
    planned = {
        "goal": goal,
        "wanted": wanted,
        "value": found.value,
        "base": list(settings.base) or None,
        "task": law.task,
        "accuracy": law.accuracy,
        "item_mean": law.item_mean,
        "item_sd": law.item_sd,
        "num_choices": law.num_choices,
        "guess_rate": law.guess_rate,
        "seeds": found.seeds,
        "logged_items": law.num_items,
        "logged_answers": law.num_answers,
        "cheapest": best.answers if np.isfinite(best.cost) else 0,
    }
    per_item = np.array([(base_answers or num) + found.seeds * num for num in tried])
    curve = {
        "cost_tried": (("answers", "items_tried"), per_item[:, None] * found.items),
        "width_tried": (("answers", "items_tried"), found.width),
        "power_tried": (("answers", "items_tried"), found.power),
    }
    groups = {
        "plan": _designs(found.by_answers, "answers"),
        "curve": xr.Dataset(curve, {"answers": tried, "items_tried": found.items}),
    }
    if found.by_seeds:
        groups["seeds"] = _designs(found.by_seeds, "seeds")
    return outputs.result(settings.asdict() | planned, groups)


def _designs(designs: Sequence[Design], dim: str) -> xr.Dataset:
    columns = {name: (dim, [getattr(design, name) for design in designs]) for name in Design._fields}
    return xr.Dataset(columns).set_coords(dim)


def _law(settings: Settings) -> BaseLaw:
    """Return the law of the base's items: from its log, or as it is supposed."""
    if settings.base:
        return base_law(list(settings.base), task=settings.task, metric=settings.metric)
    choices = settings.num_choices
    most = 0.0 if choices is None else 1.0 / choices
    guess = most if settings.guess_rate is None else settings.guess_rate
    if not 0.0 <= guess <= most * (1.0 + 1e-9):
        where = "must come with num_choices" if choices is None else f"must lie in [0, 1/{choices}]"
        raise InputError(f"guess_rate {where}; got {guess:g}")
    share = open_interval(
        "accuracy", _ACCURACY if settings.accuracy is None else settings.accuracy, guess, 1.0
    )
    sd = _ITEM_SD if settings.item_sd is None else settings.item_sd
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
    percent = interval_percent()
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
    base = f"as its log of {settings['task']}" if settings["logged_items"] else "as supposed"
    caption = (
        f"{seen}Supposed: mass lost {settings['mass_lost']:g}, drift {settings['drift']:g}, drift spread "
        f"{settings['drift_spread']:g}; base {base} with accuracy "
        f"{settings['accuracy']:.3g}, items' logits of mean {settings['item_mean']:.3g} and sd "
        f"{settings['item_sd']:.3g}{guess}. {counted}. n/a: not with {settings['max_items']:,} items."
    )
    shown: list[tables.Column] = [
        ("items", "items", _whole),
        ("cost", "cost", _whole),
        ("width", "width"),
        ("probability\nto see", "power"),
        ("false\nalarm", "false_alarm"),
    ]
    if settings["goal"] == "width" or "seed_sd" in settings:
        shown = shown[:-1]
    marked = frame.assign(mark=np.where(frame["cheapest"], "cheapest", ""))
    parts = [
        tables.listed(
            marked,
            [("answers\nan item", "answers", _whole), *shown, ("", "mark")],
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


def _answers(row: tables.Row, name: str) -> str:
    return tables.MISSING if np.isnan(row["items"]) else _whole(row, name)


def _whole(row: tables.Row, name: str) -> str:
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
