"""Texts of three tasks: templates with words that each task prefers, and mixtures of known weight."""

import json

import numpy as np

_VOCABULARY = np.array([f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in "dklmnrstvx"])

_TEMPLATES = {
    "old": ("The {} of {} is {}.", "So {} gives {}.", "Hence {} {} {}."),
    "new": ("def {}({}): return {}", "for {} in {}: {}", "{} = {} + {}"),
    "chat": ("Oh, {}! {} and {}?", "You said {}, {} {}...", "Well, {}; {} or {}, then!"),
}


def texts_of(task, num, rng):
    """Draw independent texts of a task, ``"old"``, ``"new"`` or ``"chat"``."""
    # All tasks know all words, in other orders of preference.
    order = np.random.default_rng(len(_TEMPLATES[task][0])).permutation(len(_VOCABULARY))
    preference = 1.0 / (2.0 + np.arange(len(order)))
    preference /= preference.sum()
    found = []
    for _ in range(num):
        lines = rng.choice(_TEMPLATES[task], size=rng.integers(2, 6))
        filled = [line.format(*_VOCABULARY[order[rng.choice(len(order), 3, p=preference)]]) for line in lines]
        found.append("\n".join(filled) + f" {rng.integers(10**9)}")
    return found


def mixture_of(old_weight, num, rng):
    """Draw texts of which each is of the old task with a probability."""
    is_old = rng.uniform(size=num) < old_weight
    old, new = (iter(texts_of(task, num, rng)) for task in ("old", "new"))
    return [next(old) if one else next(new) for one in is_old]


def write_lines(path, rows):
    """Write a row a line as JSON; a text is a row of it alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": row} if isinstance(row, str) else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
