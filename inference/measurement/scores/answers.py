"""Answers to prompts of the new task, with log-likelihoods under base and run, checked."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from inference.measurement.samples.labels import Labels, codes_of, numbered
from inference.measurement.samples.labels import by_checkpoint as labels_by_checkpoint
from inference.measurement.scores.inputs import ScoresLike, by_checkpoint
from mixture_models.validation import InputError, one_of

#: Whose answers they may be.
SAMPLED_FROM = ("base", "run")


class Answers(NamedTuple):
    """Answers of one checkpoint.

    Attributes:
        log_base: log-likelihood under the base [nat].
        log_run: under the run.
        prompts: number of each answer's prompt, 0 to P-1; its own where prompts are not known.
        tokens: of each answer, or None.
        labelled: whether prompts are known.
    """

    log_base: Float[np.ndarray, "n"]
    log_run: Float[np.ndarray, "n"]
    prompts: Int[np.ndarray, "n"]
    tokens: Float[np.ndarray, "n"] | None
    labelled: bool


class Given(NamedTuple):
    """Answers as users give them.

    Attributes:
        log_base: log-likelihoods under the base; of its own answers one array for all checkpoints will do.
        log_run: under each checkpoint.
        sampled_from: ``"base"`` or ``"run"``.
        prompts: labels of the answers' prompts.
        tokens: how many each answer has.
    """

    log_base: ScoresLike | None
    log_run: ScoresLike | None
    sampled_from: str | None
    prompts: Labels
    tokens: ScoresLike | None


def answers_of(names: Sequence[Hashable], given: Given) -> dict[Hashable, Answers] | None:
    """Return the answers of every checkpoint, or None where there are none.

    Args:
        names: of the checkpoints that are measured.
        given: the answers, all of their fields None where there are none.

    Raises:
        InputError: what is missing, does not pair or is not possible, as `measure_scores` says.
    """
    log_base, log_run, sampled_from, prompts, tokens = given
    needed = given._fields[:3]
    missing = [name for name in needed if getattr(given, name) is None]
    if log_base is None or log_run is None or sampled_from is None:
        if len(missing) == len(needed):
            if extra := [name for name in ("prompts", "tokens") if getattr(given, name) is not None]:
                raise InputError(f"{extra[0]} are those of answers with log_base and log_run; got none")
            return None
        there = " and ".join(name for name in needed if name not in missing)
        raise InputError(
            "the forward KL needs log_base, log_run and sampled_from, whose answers they are; got "
            f"{there} without {' and '.join(missing)}"
        )
    source = one_of("sampled_from", sampled_from, SAMPLED_FROM)
    run = by_checkpoint("log_run", log_run)
    base = by_checkpoint("log_base", log_base)
    counts = None if tokens is None else by_checkpoint("tokens", tokens)
    if source == "base":
        base = _shared(base, run)
        prompts = _shared_labels(prompts, len(run))
        counts = counts and _shared(counts, run)
    for what, values in (("log_run", run), ("log_base", base), ("tokens", counts)):
        if values is not None and set(values) != set(names):
            raise InputError(
                f"{what} must be of the measured checkpoints {_listed(names)}; got {_listed(list(values))}"
            )
    if isinstance(prompts, bool | str):
        raise InputError(f"prompts must be labels of the answers; got {prompts!r}")
    labelled = prompts is not None
    labels = labels_by_checkpoint("the answers", list(run), prompts) if labelled else []
    found = {}
    for place, name in enumerate(run):
        codes = _codes(name, labels[place], run[name].size) if labelled else np.arange(run[name].size)
        one = Answers(base[name], run[name], codes, None if counts is None else counts[name], labelled)
        _check(name, one, source)
        found[name] = one
    return {name: found[name] for name in names}


def _listed(names: Sequence[Hashable]) -> str:
    return ", ".join(map(str, names[:8]))


def _shared(
    given: dict[Hashable, np.ndarray], like: Mapping[Hashable, np.ndarray]
) -> dict[Hashable, np.ndarray]:
    """Return one array a checkpoint, of one without a name that is for all of them."""
    return dict.fromkeys(like, given[0]) if list(given) == [0] else given


def _shared_labels(labels: Any, count: int) -> Any:
    """Return labels a checkpoint, of those of one that are for all of them."""
    if labels is None or isinstance(labels, bool | str | Mapping):
        return labels
    nested = isinstance(labels, list | tuple) and len(labels) > 0 and np.ndim(labels[0]) == 1
    return labels if nested or np.ndim(labels) > 1 else [labels] * count


def _codes(name: Hashable, labels: np.ndarray, size: int) -> Int[np.ndarray, "n"]:
    if len(labels) != size:
        raise InputError(
            f"the answers of checkpoint {name} must have one prompt each; got {len(labels)} for "
            f"{size} answers"
        )
    return numbered(codes_of(f"the answers of checkpoint {name}", labels, np.ones(size, bool)))


def _check(name: Hashable, answers: Answers, source: str) -> None:
    """Refuse answers that do not pair, or whose divergences are infinite."""
    base, run, _, tokens, _ = answers
    if base.shape != run.shape:
        raise InputError(
            f"log_base and log_run must be of the same answers; checkpoint {name} has {base.size} and "
            f"{run.size}"
        )
    if base.size < 2:
        raise InputError(f"at least two answers give an interval; checkpoint {name} has {base.size}")
    if tokens is not None:
        if tokens.shape != base.shape:
            raise InputError(
                f"tokens must be counted of every answer; checkpoint {name} has {tokens.size} for {base.size}"
            )
        if not np.all(tokens > 0.0):
            raise InputError(
                f"every answer must have at least one token; {np.sum(tokens <= 0.0)} of checkpoint {name} "
                "have none"
            )
    own, other = ((base, "log_base"), (run, "log_run"))[:: 1 if source == "base" else -1]
    if impossible := int(np.isneginf(own[0]).sum()):
        raise InputError(
            f"an answer of the {source} must be possible under it; {impossible} of checkpoint {name} have "
            f"{own[1]} -inf"
        )
    if lost := int(np.isneginf(other[0]).sum()):
        which = "forward" if source == "base" else "reverse"
        raise InputError(
            f"the {which} KL of checkpoint {name} is infinite: {lost} answers of the {source} have "
            f"{other[1]} -inf"
        )
