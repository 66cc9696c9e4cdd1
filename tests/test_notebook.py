"""The notebook in the docs runs as it stands, without a warning, and is stored without what it printed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PATH = ROOT / "docs" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(PATH, as_version=4)


def test_the_notebook_is_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_tells(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # whatever the environment has installed
    done = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    said = "".join(
        output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"
    )
    assert said == ""
    shown = [output.data for output in outputs if "data" in output]
    # Three figures of the comparison and two of the measurement: none is lost, none shown twice.
    assert sum("image/png" in data for data in shown) == 5
    # The bars are widgets of the notebook.
    assert sum("application/vnd.jupyter.widget-view+json" in data for data in shown) >= 2
    assert any("xarray" in data.get("text/html", "") for data in shown)
    words = "".join(output.text for output in outputs if output.output_type == "stream")
    # The interval holds the truth.
    found = re.search(r"At checkpoint 100 the old weight is \S+ \[(\S+), (\S+)\]", words)
    assert float(found[1]) < 0.3 < float(found[2])
    frame = shown[-1]["text/plain"]
    assert frame.count("good") >= 4
