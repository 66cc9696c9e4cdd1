"""``massdrift report``: what it writes and refuses."""

import json
from importlib.metadata import version

import pytest
from small_runs import SMALL

from inference import results


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Two outputs of a comparison."""
    from analyses import compare
    from analyses.core import figures, reports
    from analyses.core import outputs as places

    folder = tmp_path_factory.mktemp("outputs")
    for name, seed in (("a", 1), ("b", 2)):
        settings = compare.Settings(
            objectives=["sft", "reverse_kl"],
            num_steps=12,
            batch_size=8,
            num_replicates=4,
            record_every=4,
            seed=seed,
        )
        tree = compare.run(settings, progress=False)
        tree.attrs[reports.COMMAND] = "compare"
        (folder / name).mkdir()
        with figures.collected():
            places.write_analysis(compare, tree, folder / name)
        settings.write(folder / name / "settings.toml")
    return folder


def test_a_report_is_written_into_an_output_and_again(massdrift, outputs):
    for _ in range(2):
        code, printed, _ = massdrift("report", outputs / "a")
        assert code == 0
        assert f"To look at: {outputs / 'a' / 'report.html'}" in printed
    page = (outputs / "a" / "report.html").read_text()
    assert "sft keeps " in page
    assert "massdrift compare --config settings.toml" in page
    assert "num_steps = 12" in page
    assert str(outputs) not in page


def test_a_page_names_the_versions_that_made_the_numbers(massdrift, outputs, tmp_path):
    """Not those with which the page is made; and results of which none are known have a page, too."""
    tree = results.open(outputs / "a" / "results.zarr")
    for name, stored, expected in (
        ("foreign", {"massdrift": "0.0.1", "numpyro": "0.99"}, "massdrift: 0.0.1\nnumpyro: 0.99"),
        ("nameless", None, "not stored with the results"),
    ):
        (tmp_path / name).mkdir()
        tree.attrs.pop("versions", None)
        if stored is not None:
            tree.attrs["versions"] = json.dumps(stored)
        results.save(tree, tmp_path / name / "results.zarr")
        code, _, error = massdrift("report", tmp_path / name)
        assert code == 0, error
        page = (tmp_path / name / "report.html").read_text()
        assert f"<summary>versions</summary><pre><code>{expected}</code></pre>" in page
    assert massdrift("report", outputs / "a")[0] == 0
    assert f"\nnumpyro: {version('numpyro')}\n" in (outputs / "a" / "report.html").read_text()


@pytest.mark.slow
def test_an_output_is_replaced_together_with_its_report(massdrift, outputs):
    assert massdrift("compare", "sft", *SMALL, "--out", outputs / "c")[0] == 0
    assert massdrift("report", outputs / "c")[0] == 0
    assert massdrift("compare", "sft", *SMALL, "--out", outputs / "c", "--overwrite")[0] == 0


def test_several_outputs_stand_side_by_side(massdrift, outputs, tmp_path):
    out = tmp_path / "deep" / "both.html"
    code, _, _ = massdrift("report", outputs / "a", f"other={outputs / 'b'}", "--out", out)
    assert code == 0
    page = out.read_text()
    assert "<title>massdrift: a beside other</title>" in page
    assert page.count("<figure data-view=") == 8
    assert page.count("old_weight") >= 2


def test_what_is_no_output_is_refused_in_one_sentence(massdrift, outputs, tmp_path):
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    tree = results.open(outputs / "a" / "results.zarr")
    del tree.attrs["command"]
    results.save(tree, nameless / "results.zarr")
    (tmp_path / "taken.html").write_text("mine")
    for arguments, sentence in (
        ([tmp_path / "nothing"], "there is no results.zarr in it"),
        ([nameless], "must be an output of this version's commands"),
        (
            [outputs / "a", f"a={outputs / 'b'}"],
            "must have different names, as NAME=FOLDER gives them; got a, a",
        ),
        ([outputs / "a", "--out", tmp_path / "page.txt"], "a report is an .html file"),
        ([outputs / "a", "--out", tmp_path / "taken.html"], "exists already"),
    ):
        code, _, error = massdrift("report", *arguments)
        assert code == 2, arguments
        assert sentence in error
        assert error.count("\n") == 1
    assert (tmp_path / "taken.html").read_text() == "mine"
    assert massdrift("report", outputs / "a", "--out", tmp_path / "taken.html", "--overwrite")[0] == 0
