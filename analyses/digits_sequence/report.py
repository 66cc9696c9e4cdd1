"""What a run prints: tables for a terminal of 80 columns, and what it says in words."""

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Group, RenderableType

from analyses.core import tables
from analyses.digits_sequence.layout import AT_ONCE, COUNT, EACH, NO_ORDER, SOURCES, order
from analyses.sequence import sequence
from inference.intervals import interval_percent
from inference.measurement.verdict.kinds import UNTRUSTED, of_kind

_POOLED = ["chain", "draw"]


def of_source(tree: xr.DataTree, source: str) -> xr.DataTree:
    """Return the result as one of `massdrift sequence`, its weights those of one source."""
    groups = {
        f"/{name}": tree[name].to_dataset()
        for name in ("trajectory", "trajectory_stats", "constant_data", "population")
    }
    groups |= {
        f"/{name}": tree[name].to_dataset().sel(source=source, drop=True) for name in ("stages", "forgetting")
    }
    return xr.DataTree.from_dict(groups)


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective, stage, pair of tasks that the stage does not teach, and source.

    What `order` says of the pair; ``num_agree`` of ``num_compared`` weights of the source's objective and
    stage that agree with the count; and by objective and source what `massdrift sequence` says of forgetting.
    """
    frame = order(tree)
    agrees = tree["agreement"]["task_agrees"]
    counts = agrees.sum(["network", "task"]).to_series().rename("num_agree").reset_index()
    counts["num_compared"] = agrees.sizes["network"] * agrees.sizes["task"]
    frame = frame.merge(counts, on=["source", "objective", "stage"], how="left")
    forgotten = [sequence.summary(of_source(tree, name)).assign(source=name) for name in SOURCES]
    columns = pd.concat(forgotten).reset_index().drop(columns="num_diverged")
    return frame.merge(columns, on=["objective", "source"])


def table(tree: xr.DataTree) -> RenderableType:
    """Return what is forgotten, what is lost first, and what answers say, an objective a column."""
    percent = interval_percent()
    tasks = [str(task) for task in tree["stages"]["task"].to_numpy()]
    own = [task for task in tasks if int(tree["constant_data"]["own_stage"].sel(task=task)) == 0]
    forgotten = tables.by_name(
        sequence.summary(of_source(tree, COUNT)),
        [
            ("forgetting from best", "forgetting_from_best"),
            ("forgetting from own stage", "forgetting_from_own_stage"),
            ("plasticity", "plasticity"),
            ("average performance", "average_performance"),
            *((f"last performance on {task}", f"last_{task}") for task in tasks),
        ],
        title="What is forgotten of earlier digits, and how well new ones are learnt",
        brief=("forgetting_from_best", "plasticity", *(f"last_{task}" for task in own)),
        caption=f"By the count; mean and {percent} interval over the draws of all networks. R on a task is "
        "the part of its share in the target that is kept, from 0 to 1; see massdrift sequence.",
    )
    pairs = order(tree)
    wide = pairs.pivot(
        index=["objective", "stage", "first", "second"], columns="source", values="probability"
    )
    counted = pairs[pairs["source"] == COUNT].set_index(["objective", "stage", "first", "second"])
    lines = counted.join(wide).reset_index()
    ordered = tables.listed(
        lines,
        [
            ("objective", "objective"),
            ("stage", "stage"),
            ("more : less", "first", lambda row, _: f"{row['first']} : {row['second']}"),
            ("predicted", "predicted", lambda row, name: f"{row[name]:+.2f}"),
            ("counted", "found", _signed),
            ("P(count)", COUNT, _probability),
            ("P(each)", EACH, _probability),
            ("P(at once)", AT_ONCE, _probability),
        ],
        title="Which of two tasks that are not taught is lost first",
        caption=f"Change of log(more/less) over the stage [nat], with {percent} interval: below 0 the task "
        "that held more is lost first. P: share of draws that are ordered as the mixture predicts, by the "
        "count and as measured, each task against the rest or all tasks at once; n/a where it predicts no "
        f"order (within {NO_ORDER:g}).",
    )
    return Group(forgotten, ordered, _answers(tree))


def _signed(row: tables.Row, name: str) -> str:
    return f"{row[name]:+.2f} [{row[f'{name}_lower']:+.2f}, {row[f'{name}_upper']:+.2f}]"


def _probability(row: tables.Row, name: str) -> str:
    return f"{row[name]:.2f}" if row["is_order"] else tables.MISSING


def _answers(tree: xr.DataTree) -> tables.Table:
    """Return what each stage has lost of the answers to each task that it does not teach."""
    evals, taught = tree["evals"].to_dataset(), tree["order"]["is_taught"]
    columns: dict[str, pd.Series] = {}
    rows: list[tables.Column] = []
    for stage in evals["stage"].to_numpy():
        for task in evals["task"].to_numpy():
            name = f"lost_{stage}_{task}"
            values = evals["accuracy_change" if taught.sel(stage=stage, task=task) else "lost"]
            found = tables.interval_columns(name, values.sel(stage=stage, task=task))
            columns |= {column: one.to_series() for column, one in found.items()}
            word = "change" if taught.sel(stage=stage, task=task) else "lost"
            rows.append((f"stage {stage}, {task}: {word}", name))
    return tables.by_name(
        pd.DataFrame(columns),
        rows,
        title="What each stage changes in answers: digits of which the upper half is given",
        caption="Success lost since the stage began, and of the task that it teaches the change of accuracy; "
        f"mean and {interval_percent()} interval over the draws of all networks.",
    )


def remarks(tree: xr.DataTree) -> list[str]:
    """Return whether the mixture predicts the order, and how right the measurements are."""
    return [_of_order(tree), _of_measurements(tree)]


def _of_order(tree: xr.DataTree) -> str:
    """Say at how many pairs the order is the predicted one, by the count and as measured."""
    frame = order(tree)
    total, predicted = (len(rows) for rows in (frame, frame[frame["is_order"]]))
    said = []
    for source, name in ((COUNT, "the count"), (EACH, f"the measurements of {EACH}")):
        own = frame[(frame["source"] == source) & frame["is_order"]]
        surely = own[(own["found_lower"] > 0.0) | (own["found_upper"] < 0.0)]
        right = np.sign(surely["found"]) == np.sign(surely["predicted"])
        each = {
            word: [f"{row['objective']} in stage {row['stage']}" for _, row in rows.iterrows()]
            for word, rows in (("predicted", surely[right]), ("opposite", surely[~right]))
        }
        told = "; ".join(
            f"the {word} one at {len(names)}{f' ({", ".join(names)})' if names else ''}"
            for word, names in each.items()
        )
        said.append(
            f"By {name} the interval of all networks tells an order at {len(surely)}: {told}; of all draws "
            f"{own['probability'].mean():.2f} are ordered as predicted, where chance is 0.5."
        )
    count = len(SOURCES)
    return (
        "The mixture predicts which of two tasks that are not taught is lost first at "
        f"{predicted // count} of {total // count} pairs of an objective and a stage. {' '.join(said)}"
    )


def _of_measurements(tree: xr.DataTree) -> str:
    """Say how far the measurements are from the count."""
    agreement = tree["agreement"].to_dataset()
    # The start is one measurement for all objectives.
    distinct = np.ones((agreement.sizes["objective"], agreement.sizes["stage"]), bool)
    distinct[1:, 0] = False
    words = (
        tree["sample_stats"]["weight_words"].transpose("objective", "stage", "network").to_numpy()[distinct]
    )
    said = []
    for source in (EACH, AT_ONCE):
        own = agreement.sel(source=source).transpose("objective", "stage", "network", "task")
        agrees, off = (own[name].to_numpy()[distinct] for name in ("task_agrees", "task_difference"))
        said.append(
            f"measured {source} agree at {agrees.sum()} of {agrees.size} (root mean square of the difference "
            f"{np.sqrt(np.mean(off**2)):.3f}, largest {np.abs(off).max():.2f})"
        )
    distrusted = of_kind(words, UNTRUSTED).sum()
    return (
        f"Weights of tasks against the count: {'; '.join(said)}. Of the measurements of all tasks at once "
        f"{distrusted} of {words.size} are not to be trusted by their own checks."
    )
