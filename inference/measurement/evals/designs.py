"""How many items, answers and training seeds a question about forgetting takes, and what they cost."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, nctdtr, stdtrit

from inference.engine.blas import on_one_thread
from inference.intervals import interval_probability
from inference.measurement.evals.planning import Expected, Surface, Truth, expected, per_item, surface
from mixture_models.validation import InputError

#: What can be asked for: the width of the interval, or the probability to see a loss.
GOALS = ("width", "power")

#: Items that are planned with: of fewer the law is not known. And points of a curve over them.
LEAST_ITEMS, MOST_ITEMS, NUM_CURVE = 50, 1_000_000, 12

#: Training seeds of an arm at most.
MOST_SEEDS = 50

_HALVINGS = 5


class Question(NamedTuple):
    """What shall be known of a run, or of an arm, by evaluation.

    Attributes:
        truth: what is supposed.
        quantity: name of what is measured, one of `planning.QUANTITIES`.
        goal: one of `GOALS`.
        wanted: the width, or the probability.
        rope: how much counts as no loss.
        seed_sd: standard deviation of the quantity between training seeds, or None: the run is asked about.
        base_answers: answers of the base to each item; None: as many as of the run.
    """

    truth: Truth
    quantity: str
    goal: str
    wanted: float
    rope: float = 0.0
    seed_sd: float | None = None
    base_answers: int | None = None


class Design(NamedTuple):
    """A way to reach the goal; NaN where none is.

    Attributes:
        answers: of a run to each item.
        seeds: training seeds of the arm.
        items: of the task.
        cost: generated answers, those of the base and of all runs.
        width: expected width of the interval.
        power: probability to see a loss.
        false_alarm: the same where nothing is lost, drifted or spread; of runs, not of arms.
    """

    answers: int
    seeds: int
    items: float
    cost: float
    width: float
    power: float
    false_alarm: float


class Plan(NamedTuple):
    """Designs by answers an item, and by training seeds, and the curves that they are read from.

    Attributes:
        value: of the quantity, as supposed.
        seeds: of the first designs.
        by_answers: a design for each number of answers.
        by_seeds: of some numbers of training seeds, the cheapest design; none without `Question.seed_sd`.
        items: of the curves.
        width: expected width, a row a number of answers.
        power: probability to see a loss.
    """

    value: float
    seeds: int
    by_answers: list[Design]
    by_seeds: list[Design]
    items: Float[np.ndarray, "n"]
    width: Float[np.ndarray, "a n"]
    power: Float[np.ndarray, "a n"]


@on_one_thread
def plan(
    question: Question, answers: Sequence[int], seeds: int | None = None, most_items: int = MOST_ITEMS
) -> Plan:
    """Return the fewest items that reach the goal, for each number of answers an item.

    Args:
        question: what shall be known.
        answers: of a run to each item; those that are tried.
        seeds: training seeds of an arm; None: the fewest that reach the goal if what a run is measured by is
            as uncertain as runs are different.
        most_items: that there are.

    Raises:
        InputError: a loss that is looked for, and supposed to be one that counts as none.
    """
    of = surface(question.truth, question.quantity)
    effect = of.sign * (of.value - of.nothing)
    if question.goal == "power" and effect <= question.rope * (1.0 + 1e-9):
        raise InputError(
            f"the supposed loss in {question.quantity} must be greater than rope, {question.rope:g}, to be "
            f"seen; got {effect + 0.0:.3g}"
        )
    seeds = 1 if question.seed_sd is None else seeds or _fewest_seeds(question, of)
    curves = {num: _Curve(question, of, num, most_items) for num in answers}
    by_answers = [curve.design(seeds) for curve in curves.values()]
    by_seeds = []
    if question.seed_sd is not None:
        tried = sorted({*range(max(2, seeds - 2), seeds + 3), 2 * seeds})
        by_seeds = [cheapest([curve.design(num) for curve in curves.values()]) for num in tried]
    if question.goal == "power" and question.seed_sd is None:
        nothing = question.truth._replace(mass_lost=0.0, drift=0.0, drift_spread=0.0)
        of_nothing = surface(nothing, question.quantity)
        by_answers = [_with_false_alarm(design, question, nothing, of_nothing) for design in by_answers]
    at = [[_reached(question, of, seeds, e) for e in curve.expected] for curve in curves.values()]
    width, power = np.moveaxis(np.array(at), -1, 0)
    return Plan(of.value, seeds, by_answers, by_seeds, _items(most_items), width, power)


def cheapest(designs: Sequence[Design]) -> Design:
    """Return the design of the least cost; one that reaches nothing if none reaches the goal."""
    return min(designs, key=lambda design: math.inf if math.isnan(design.cost) else design.cost)


class _Curve:
    """What so many answers an item give, over the number of items."""

    def __init__(self, question: Question, of: Surface, answers: int, most_items: int) -> None:
        self.question, self.of, self.answers = question, of, answers
        self.base = question.base_answers or answers
        self.item = per_item(question.truth, self.base, answers)
        self.known: dict[float, Expected] = {}
        self.items = _items(most_items)
        self.expected = [self._at(items) for items in self.items]

    def _at(self, items: float) -> Expected:
        if items not in self.known:
            self.known[items] = expected(self.item, self.of, items, self.question.rope)
        return self.known[items]

    def design(self, seeds: int) -> Design:
        """Return the fewest items that reach the goal from there on."""

        def lacks(items: float) -> float:
            width, power = _reached(self.question, self.of, seeds, self._at(items))
            wanted = self.question.wanted
            return math.log(width / wanted) if self.question.goal == "width" else wanted - power

        lacking = np.array([lacks(items) for items in self.items])
        if not lacking[-1] <= 0.0:
            return Design(self.answers, seeds, *[math.nan] * 5)
        enough = int(np.flatnonzero(np.append(1.0, lacking) > 0.0)[-1])
        items = float(self.items[enough])
        if enough:
            low, high = float(self.items[enough - 1]), items
            for _ in range(_HALVINGS):
                middle = math.sqrt(low * high)
                low, high = (middle, high) if lacks(middle) > 0.0 else (low, middle)
            items = high
        width, power = _reached(self.question, self.of, seeds, self._at(items))
        items = math.ceil(items - 1e-9)
        cost = items * (self.base + seeds * self.answers)
        return Design(self.answers, seeds, items, cost, width, power, math.nan)


def _items(most_items: int) -> Float[np.ndarray, "n"]:
    return np.geomspace(min(LEAST_ITEMS, most_items), most_items, NUM_CURVE)


def _with_false_alarm(design: Design, question: Question, nothing: Truth, of: Surface) -> Design:
    if math.isnan(design.items):
        return design
    item = per_item(nothing, question.base_answers or design.answers, design.answers)
    return design._replace(false_alarm=expected(item, of, design.items, question.rope).power)


def _fewest_seeds(question: Question, of: Surface) -> int:
    as_uncertain = Expected(math.nan, math.nan, float(question.seed_sd or 0.0))
    for seeds in range(2, MOST_SEEDS):
        width, power = _reached(question, of, seeds, as_uncertain)
        if width <= question.wanted if question.goal == "width" else power >= question.wanted:
            return seeds
    return MOST_SEEDS


def _reached(question: Question, of: Surface, seeds: int, found: Expected) -> tuple[float, float]:
    """Return the expected width and the power, of one run or of an arm of so many training seeds."""
    if question.seed_sd is None:
        return found.width, found.power
    sd = math.hypot(question.seed_sd, found.sd)
    effect = of.sign * (of.value - of.nothing) - question.rope
    return arm_width(sd, seeds), arm_power(effect, sd, seeds)


def arm_width(sd: float, seeds: int) -> float:
    """Return the expected width of Student's interval of an arm's mean.

    Args:
        sd: standard deviation of what is measured of its runs, between seeds and by evaluation together.
        seeds: training seeds, at least 2.
    """
    freedom = seeds - 1.0
    # The mean of an estimated standard deviation is less than the true one.
    shrunk = math.sqrt(2.0 / freedom) * math.exp(gammaln(0.5 * seeds) - gammaln(0.5 * freedom))
    return 2.0 * float(stdtrit(freedom, 0.5 + 0.5 * interval_probability())) * shrunk * sd / math.sqrt(seeds)


def arm_power(effect: float, sd: float, seeds: int) -> float:
    """Return the probability that Student's interval of an arm's mean leaves out what is no loss.

    Args:
        effect: by how much the loss is more than what counts as none.
        sd: as in `arm_width`.
        seeds: training seeds, at least 2.
    """
    freedom, noise = seeds - 1.0, max(sd, 1e-12) / math.sqrt(seeds)
    beyond = float(stdtrit(freedom, 0.5 + 0.5 * interval_probability()))
    return 1.0 - float(nctdtr(freedom, min(effect / noise, 30.0), beyond))
