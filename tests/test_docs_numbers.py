"""A number in the README or the docs is that of the command beside it."""

import docs_numbers
import pandas as pd
import pytest
from docs_numbers import PAGES, Statement, numbers, statements

STATED = [statement for page in PAGES for statement in statements(page)]
COMMANDS = sorted({statement.command for statement in STATED})


def test_what_is_declared_is_much_and_is_there():
    """Reading the declarations refuses texts that are not in their sections."""
    assert len(STATED) >= 100
    assert {"README.md", "analyses.md", "chen2025.md", "objectives.md"} <= {s.page for s in STATED}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_is_that_of_its_command(command, massdrift, tmp_path):
    code, _, errors = massdrift(*command.split(), "--out", tmp_path / "out")
    assert code == 0, errors
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    wrong = [s.wrong(summary) for s in STATED if s.command == command]
    assert not any(wrong), "\n".join(filter(None, wrong))


SUMMARY = pd.DataFrame(
    {
        "objective": ["sft", "oapl"],
        "x": [0.02874, -2.1e-4],
        "x_lower": [0.0271, -3e-4],
        "x_upper": [0.03, 0.0],
    }
)


@pytest.mark.parametrize(
    ("text", "row", "right"),
    [
        ("0.0287", "sft", True),
        ("0.0288", "sft", False),
        ("0.029", "sft", True),
        ("2.9 %", "sft", True),
        ("2.8 %", "sft", False),
        ("0.0287 [0.0271, 0.0300]", "sft", True),
        ("0.0287 [0.0271, 0.0302]", "sft", False),
        ("[0.0271, 0.03]", "sft", True),
        ("[0.0272, 0.03]", "sft", False),
        ("-2.1e-04", "oapl", True),
        ("-2.1·10⁻⁴", "oapl", True),
        ("2.1e-04", "oapl", False),
        ("0.0287", "neither", False),
    ],
)
def test_a_number_is_compared_to_the_digits_that_are_stated(text, row, right):
    statement = Statement("page", "compare", text, "x", (("objective", row),))
    assert (statement.wrong(SUMMARY) is None) == right


def test_a_text_that_is_not_there_or_a_nameless_command_is_refused(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        "## One\n\nIt is 0.5.\n\n<!-- numbers of `massdrift compare`\n0.6 | x | objective=sft\n-->\n"
    )
    with pytest.raises(ValueError, match=r"must hold a number in '0\.6'"):
        statements(page)
    page.write_text(page.read_text().replace("0.6 |", "0.5 |"))
    assert [s.text for s in statements(page)] == ["0.5"]
    page.write_text("<!-- numbers of the demo\n-->")
    with pytest.raises(ValueError, match="must name its command"):
        statements(page)
    assert list(numbers("21,600 and 3")) == [(21600.0, 0.5), (3.0, 0.5)]
    assert docs_numbers.ROOT.joinpath("README.md").exists()
