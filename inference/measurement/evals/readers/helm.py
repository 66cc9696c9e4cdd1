"""HELM: a run folder with ``per_instance_stats.json``, and what is beside it.

``run_spec.json`` has the model, ``scenario_state.json`` the items' texts and, where all choices were in one
prompt, the chosen answers. The trials of an instance are its repeats; perturbed instances are not read, and
where there is a split ``test``, other splits are left out, as HELM's own summary does.
"""

from pathlib import Path
from typing import NamedTuple

from inference.measurement.evals.readers.log import (
    METRICS,
    NONE_OF_THEM,
    Log,
    Options,
    Rows,
    choose,
    digest,
    json_file,
)
from inference.storage.reading import JsonObject
from mixture_models.validation import InputError


class _Item(NamedTuple):
    text: int
    choice: str | None
    answer: str | None
    num_choices: int | None


def read(path: Path, options: Options) -> Log:
    """Read the run folder of a file ``per_instance_stats.json``.

    Raises:
        InputError: a file that is cut off, or without answers or scores.
    """
    found = json_file(path)
    spec = json_file(path.with_name("run_spec.json")) if path.with_name("run_spec.json").is_file() else {}
    adapter = spec.get("adapter_spec") or {}
    task = _task(str(spec.get("name") or path.parent.name))
    items = _items(path.with_name("scenario_state.json"), adapter.get("method"))
    answers = [(row, _scores(row)) for row in found if isinstance(row, dict) and not row.get("perturbation")]
    if not answers:
        raise InputError(f"a log must have answers; {path} has none")
    present = {name for _, scores in answers for name in scores}
    # A run has many statistics that are no scores, so that unknown ones are read only when they are named.
    metric = choose("metric", present & {*METRICS, *options.metric}, options.metric, METRICS, path)
    splits = {_split(row) for row, _ in answers}
    rows = Rows()
    for row, scores in answers:
        other = "test" in splits and _split(row) != "test"
        trial, name = int(row.get("train_trial_index") or 0), str(row["instance_id"])
        item = items.get((name, trial), _Item(0, None, None, None))
        score = scores.get(metric, float("nan"))
        choice = item.choice
        if score in (0.0, 1.0) and item.answer is not None and (choice == item.answer) != (score == 1.0):
            choice = None
        rows.add(
            name,
            score,
            sample=trial,
            choice=choice,
            answer=item.answer,
            num_choices=item.num_choices,
            text=item.text,
            problem=f"of the split {_split(row)}" if other else None,
        )
    hint = "a trial of an instance must be there once"
    return Log(rows.frame(task, path, hint=hint), adapter.get("model"), {task: metric})


def _task(name: str) -> str:
    """Return a run's name without its model."""
    scenario, _, arguments = name.partition(":")
    kept = [a for a in arguments.split(",") if a and not a.startswith(("model=", "model_deployment="))]
    return ":".join([scenario, ",".join(kept)]) if kept else scenario


def _split(row: JsonObject) -> str:
    """Return the split of an instance, which each of its statistics names."""
    return next((str(stat["name"].get("split")) for stat in row.get("stats") or [] if stat.get("name")), "")


def _scores(row: JsonObject) -> dict[str, float]:
    scores = {}
    for stat in row.get("stats") or []:
        name, count = stat.get("name") or {}, stat.get("count")
        if count and not name.get("perturbation"):
            scores[str(name.get("name"))] = float(stat.get("sum", float("nan"))) / count
    return scores


def _items(path: Path, method: str | None) -> dict[tuple[str, int], _Item]:
    """Return what is known of each instance and trial, nothing where the file is not there."""
    if not path.is_file():
        return {}
    joint = method == "multiple_choice_joint"
    items = {}
    for state in json_file(path).get("request_states") or []:
        instance = state.get("instance") or {}
        if instance.get("perturbation"):
            continue
        references = instance.get("references") or []
        texts = [(r.get("output") or {}).get("text") for r in references]
        text = digest((instance.get("input") or {}).get("text") or "", texts)
        letters, choice, answer = state.get("output_mapping") or {}, None, None
        if joint and letters:
            completions = (state.get("result") or {}).get("completions") or []
            said = str(completions[0].get("text", "")).strip() if completions else ""
            choice = said if said in letters else NONE_OF_THEM
            right = [t for t, r in zip(texts, references, strict=True) if "correct" in (r.get("tags") or [])]
            answers = [letter for letter, t in letters.items() if t in right]
            answer = answers[0] if len(answers) == 1 else None
        num = len(references) if str(method).startswith("multiple_choice") and len(references) >= 2 else None
        key = (str(instance.get("id")), int(state.get("train_trial_index") or 0))
        items[key] = _Item(text, choice, answer, num)
    return items
