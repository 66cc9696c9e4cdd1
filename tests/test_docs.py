"""Every Python example in the README and the docs runs as it stands."""

import re
from operator import attrgetter
from pathlib import Path

import pytest

import mixture_models

ROOT = Path(__file__).parent.parent
# Trainings and measurements of other examples in other sizes.
SLOW = {
    *(f"measurement.md-{number}" for number in (2, 3, 4, 5)),
    *("results.md-0", "sequences.md-0"),
    *("objectives.md-0", "objectives.md-3", "sweeps.md-0", "sweeps.md-1", "sweeps.md-2"),
}
EXAMPLES = [
    pytest.param(
        code,
        id=f"{path.name}-{number}",
        marks=[pytest.mark.slow] if f"{path.name}-{number}" in SLOW else [],
    )
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
]


def test_there_are_examples():
    assert len(EXAMPLES) >= 5
    assert {example.id for example in EXAMPLES} >= SLOW


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_every_local_link_leads_somewhere():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    local = [(page, link) for page, link in links if not link.startswith("http")]
    assert len(local) > 20
    for page, link in local:
        assert (page.parent / link.partition("#")[0]).exists(), (page.name, link)


def test_every_function_and_test_that_the_derivations_name_exists():
    text = (ROOT / "docs" / "theory.md").read_text()
    functions = set(re.findall(r"`(theory\.\w+)`", text))
    assert functions == {f"theory.{name}" for name in mixture_models.theory.__all__ if name.islower()}
    for name in functions:
        assert callable(attrgetter(name)(mixture_models))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


def test_every_file_that_the_docs_name_exists():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    pattern = r"(?:tests|benchmarks|mixture_models|inference|analyses)/[\w/]*\.py"
    named = [(page, path) for page in pages for path in re.findall(pattern, page.read_text())]
    assert len(named) > 10
    for page, path in named:
        assert (ROOT / path).exists(), (page.name, path)


def test_contributing_names_every_folder():
    """A newcomer finds the room for a change from the table, so that no folder may be missing in it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = ("mixture_models", "inference", "analyses")
    folders = {
        path.parent.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")
    }
    # Of what holds only folders these are named.
    missing = {f"{folder}/" for folder in folders} - set(re.findall(r"`([\w/]+/)`", text))
    assert missing <= {"inference/measurement/"}
    for name in re.findall(r"`([\w/]+/)`", text):
        assert (ROOT / name).is_dir(), name
