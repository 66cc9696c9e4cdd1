"""Pairing of answers, against counts in plain Python; what never matters to it."""

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.measurement.evals.pairing import CELLS, Paired, pair
from inference.measurement.evals.readers import read
from mixture_models import InputError

NAMES = (
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters='"'),
        min_size=1,
        max_size=5,
    )
    .map(str.strip)
    .filter(bool)
)


@st.composite
def tables(draw):
    """A table of answers: a base and runs, tasks, seeds, repeats, choices, scores in between, gaps."""
    tasks, items = (draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)) for _ in range(2))
    arms = draw(st.lists(NAMES.filter(lambda n: n != "base"), min_size=1, max_size=2, unique=True))
    runs = [("base", "0", "base")]
    runs += [(arm, seed, step) for arm in arms for seed in "01" for step in (7, 30) if draw(st.booleans())]
    rows = []
    for arm, seed, checkpoint in runs:
        for task in tasks:
            for item in items:
                for sample in range(draw(st.integers(0, 3))):
                    score = draw(st.sampled_from([0.0, 1.0, 0.5, None]))
                    rows.append(
                        (arm, seed, checkpoint, task, item, sample, score, draw(st.sampled_from("ABC")))
                    )
    names = ["arm", "seed", "checkpoint", "task", "item", "sample", "score", "choice"]
    return pd.DataFrame(rows, columns=names).assign(num_choices=4)


def counted(table):
    """Return cells, choices and items by run, in plain Python."""
    answers = defaultdict(lambda: defaultdict(list))
    for row in table.itertuples():
        if row.score is not None and row.score == row.score:
            answers[row.task, row.arm, row.seed, row.checkpoint][row.item].append((row.score, row.choice))
    result = {}
    for (task, *run), items in answers.items():
        base = answers.get((task, "base", "0", "base"), {})
        common = sorted(base.keys() & items.keys())
        if run[0] == "base" or not common:
            continue
        sides = [[side[item] for item in common] for side in (base, items)]
        flat = [answer for side in sides for item in side for answer in item]
        if len(flat) == 2 * len(common) and all(score in (0.0, 1.0) for score, _ in flat):
            found = Counter()
            for ((was, old),), ((now, new),) in zip(*sides, strict=True):
                if was == now == 0.0:
                    found["wrong_same" if old == new else "wrong_other"] += 1
                else:
                    found[f"{'right' if was else 'wrong'}_{'right' if now else 'wrong'}"] += 1
        else:
            found = Counter(
                (sum(s for s, _ in b), len(b), sum(s for s, _ in r), len(r))
                for b, r in zip(*sides, strict=True)
            )
        result[(task, *run)] = dict(found)
    return result


def cells_of(paired: Paired):
    result = {}
    for place, run in enumerate(paired.runs.itertuples()):
        if run.kind == "choices":
            (row,) = paired.choices[paired.choices["run"] == place][list(CELLS)].to_dict("records")
            cells = {name: int(num) for name, num in row.items() if num}
        else:
            rows = paired.repeats[paired.repeats["run"] == place]
            assert (rows["num_choices"] == 4).all()
            cells = {
                tuple(float(v) for v in row[1:5]): int(row.num_items) for row in rows.itertuples(index=False)
            }
        assert sum(cells.values()) == run.num_items
        result[run.task, run.arm, run.seed, run.checkpoint] = cells
    return result


def paired_or_error(source, **options):
    try:
        return pair(read(source, progress=False, **options))
    except InputError as error:
        return str(error)


QUICK = settings(max_examples=25, deadline=None)


@QUICK
@given(tables())
def test_cells_are_those_of_plain_python(table):
    expected = counted(table)
    found = paired_or_error(table)
    if isinstance(found, str):
        # A task of which base and run have no item in common, nothing to compare, or nothing at all.
        assert any(
            text in found for text in ("in common", "beside the base", "have the base", "must have rows")
        )
        return
    assert cells_of(found) == expected
    # Every item of a run is in a cell, or left out for a reason.
    run = ["task", "arm", "seed", "checkpoint"]
    items = table.groupby(run)["item"].nunique()
    left = found.left_out
    left = left[~left["reason"].str.endswith("of some samples") & (left["reason"] != "only in the base")]
    missing = left.groupby(run)["num_items"].sum()
    for row in found.runs.itertuples():
        key = (row.task, row.arm, row.seed, row.checkpoint)
        assert row.num_items + missing.get(key, 0) == items[key]


@pytest.mark.slow
@QUICK
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_split_into_files_never_matter(tmp_path_factory, table, random):
    folder = tmp_path_factory.mktemp("split")
    expected = paired_or_error(table)
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = table.iloc[order].reset_index(drop=True).astype({"checkpoint": str})  # parquet has one type
    cut = random.randint(0, len(table))
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if len(part)]
    files = []
    for place, part in enumerate(parts):
        files.append(folder / f"{random.randint(0, 9)}-{place}.parquet")
        part.to_parquet(files[-1])
    for source in (shuffled, parts, files, folder):
        found = paired_or_error(source if len(parts) else table)
        if isinstance(expected, str):
            assert isinstance(found, str)
        else:
            assert cells_of(found) == cells_of(expected)
            columns = ["task", "arm", "seed", "checkpoint", "reason"]
            for one, other in zip(*(p.left_out.sort_values(columns) for p in (found, expected)), strict=True):
                assert one == other
            counts = [p.left_out.groupby(columns)["num_items"].sum() for p in (found, expected)]
            pd.testing.assert_series_equal(*counts)


@pytest.mark.slow
@QUICK
@given(tables())
def test_every_kind_of_table_gives_the_same_cells(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("kinds")
    expected = paired_or_error(table)
    if not len(table):
        return
    table = table.astype({"checkpoint": str})
    table.to_csv(folder / "x.csv", index=False)
    table.to_csv(folder / "x.tsv", index=False, sep="\t")
    table.to_json(folder / "x.jsonl", orient="records", lines=True, force_ascii=False)
    table.to_parquet(folder / "x.parquet")
    labelled = xr.Dataset.from_dataframe(table.rename_axis("row"))
    sources = {path.suffix: path for path in folder.iterdir()} | {"xarray": labelled}
    for name, source in sources.items():
        found = paired_or_error(source)
        if isinstance(expected, str):
            assert isinstance(found, str), name
        else:
            assert cells_of(found) == cells_of(expected), name
            pd.testing.assert_frame_equal(found.left_out, expected.left_out)


def rows(arm, checkpoint, scores, seed="0", task="t", **more):
    return pd.DataFrame({"item": list("abcdefgh")[: len(scores)], "score": scores}).assign(
        arm=arm, checkpoint=checkpoint, seed=seed, task=task, **more
    )


def test_runs_are_in_order():
    table = pd.concat(
        [rows("sft", step, [1, 0]) for step in (100, 20, 3)]
        + [
            rows("base", "base", [1, 1]),
            rows("rl", 5, [1, 0]),
            rows("rl", "last", [1, 0]),
            rows("rl", 40, [1, 0]),
        ]
    )
    runs = pair(read(table, progress=False)).runs
    assert runs[["arm", "checkpoint"]].to_numpy().tolist() == [
        ["sft", 3],
        ["sft", 20],
        ["sft", 100],
        ["rl", 5],
        ["rl", 40],
        ["rl", "last"],
    ]


def test_a_base_that_every_arm_has_a_copy_of():
    table = pd.concat([rows(arm, c, s) for arm in ("sft", "rl") for c, s in ((0, [1, 0]), (9, [0, 0]))])
    paired = pair(read(table, base="0", progress=False), base=0)
    assert paired.runs[["arm", "num_items"]].to_numpy().tolist() == [["sft", 2], ["rl", 2]]
    assert (paired.repeats["num_base"] == 1).all()
    table.iloc[4, table.columns.get_loc("score")] = 0  # the first item of the base of rl
    with pytest.raises(InputError, match="differ between arm sft, seed 0, checkpoint 0 and arm rl"):
        pair(read(table, base="0", progress=False), base="0")


def test_one_answer_more_makes_repeats():
    known = {"choice": "A", "num_choices": 4}
    base, run = rows("base", "base", [1, 0], **known), rows("sft", 1, [1, 0], **known)
    kinds = {
        "choices": [base, run],
        "repeats of one": [base, run, run.iloc[:1].assign(sample=1)],
        "repeats of a fraction": [base, run.assign(score=[1.0, 0.5])],
        "repeats of an unknown choice": [base, run.assign(choice=["A", None])],
        "repeats of one choice": [base.assign(num_choices=1), run.assign(num_choices=1)],
    }
    for name, parts in kinds.items():
        table = pd.concat([part.assign(sample=part.get("sample", 0)) for part in parts])
        assert pair(read(table, progress=False)).runs["kind"].to_list() == [name.split()[0]], name


def test_different_numbers_of_choices():
    base = rows("base", "base", [1, 0, 1], choice="A", num_choices=[4, 5, 2])
    paired = pair(
        read(pd.concat([base, base.assign(arm="sft", checkpoint=1, num_choices=[4, 3, 2])]), progress=False)
    )
    assert paired.choices[["num_choices", "right_right"]].to_numpy().tolist() == [[2, 1], [4, 1]]
    assert paired.left_out[["reason", "examples"]].to_numpy().tolist() == [
        ["different numbers of choices", "b"]
    ]


def test_a_plain_table_can_be_paired():
    table = pd.concat([rows("base", "base", [1, 0, 1]), rows("sft", 1, [0, 0, 1])])
    pd.testing.assert_frame_equal(pair(table).repeats, pair(read(table, progress=False)).repeats)


def test_all_right_and_all_wrong():
    table = pd.concat([rows("base", "base", [1] * 5), rows("sft", 1, [0] * 5)])
    cells = pair(read(table, progress=False)).repeats
    assert cells[["right_base", "right_run", "num_items"]].to_numpy().tolist() == [[1, 0, 5]]


def test_repeats_that_are_rows_of_one_prompt(tmp_path):
    """As a trainer writes its completions: a file a step, a row a completion, the prompt as the item."""
    prompts = [f"Of {i} lambs, each {'very ' * 40}white, how many are black?" for i in range(2)]
    for step in (0, 10):
        table = pd.DataFrame({"step": step, "prompt": prompts * 4, "reward": [1.0, 0.0, 1.0, step > 0] * 2})
        for place, part in enumerate((table[:6], table[6:])):
            part.to_parquet(tmp_path / f"completions_{step}_{place}.parquet")
    columns = {"checkpoint": "step", "item": "prompt", "score": "reward"}
    with pytest.raises(InputError, match="sample=order where rows are repeats"):
        read(tmp_path, base=0, columns=columns, progress=False)
    found = read(tmp_path, base=0, columns=columns | {"sample": "order"}, progress=False)
    assert "lambs" not in found.to_csv()
    cells = pair(found, base=0).repeats
    names = ["right_base", "num_base", "right_run", "num_run", "num_items"]
    assert cells[names].to_numpy().tolist() == [[0, 4, 2, 4, 1], [4, 4, 4, 4, 1]]


@pytest.mark.slow
def test_a_million_items():
    """Each with an answer before and after, in seconds."""
    rng = np.random.default_rng(0)
    num = 1_000_000
    items = [f"item {i}" for i in range(num)]
    table = pd.concat(
        pd.DataFrame({"item": rng.permutation(items), "checkpoint": c, "score": rng.integers(2, size=num)})
        for c in ("base", "sft")
    )
    paired = pair(read(table, progress=False))
    assert paired.repeats["num_items"].sum() == num
    assert len(paired.repeats) == 4
