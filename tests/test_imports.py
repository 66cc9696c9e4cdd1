"""Imports point one way: between packages, between the rooms in them, and no module needs itself."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "mixture_models": {"mixture_models"},
    "inference": {"mixture_models", "inference"},
    "analyses": {"mixture_models", "inference", "analyses"},
    "massdrift": {"mixture_models", "inference", "analyses", "massdrift"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in MAY_IMPORT
    for path in (ROOT / package).rglob("*.py")
}
# Whose names are loaded when they are used: what matters are the modules that hold them.
LAZY = {name for name, path in MODULES.items() if path.with_suffix(".pyi").exists()}


def imported(tree, *, whole):
    """Return the modules of ours that are imported: in the whole file, or when it is loaded."""
    found = set()
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name.partition(".")[0] in MAY_IMPORT}


def room(name):
    """Return the folder of a module, or the module itself where it stands in no folder of its package."""
    is_folder = MODULES[name].name == "__init__.py"
    return name if is_folder or name.count(".") == 1 else name.rpartition(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(package):
    for name, path in MODULES.items():
        if name.partition(".")[0] == package:
            packages = {one.partition(".")[0] for one in imported(ast.parse(path.read_text()), whole=True)}
            assert packages <= MAY_IMPORT[package], name


def test_no_module_needs_itself_to_be_loaded():
    graph = {
        name: imported(ast.parse(path.read_text()), whole=False) & set(MODULES)
        for name, path in MODULES.items()
    }
    assert len(graph) > 150
    TopologicalSorter({name: needed - LAZY for name, needed in graph.items()}).prepare()


@pytest.mark.parametrize("package", ["mixture_models", "inference", "analyses"])
def test_no_two_rooms_need_each_other(package):
    """Also by an import inside a function: a room can be read after those that it stands on."""
    graph = {}
    for name, path in MODULES.items():
        if name.partition(".")[0] == package and name != package:
            needed = imported(ast.parse(path.read_text()), whole=True) & set(MODULES)
            rooms = {room(one) for one in needed - LAZY if one.startswith(package + ".")}
            graph.setdefault(room(name), set()).update(rooms - {room(name)})
    assert len(graph) > 8
    TopologicalSorter(graph).prepare()


def test_contributing_lists_rooms_in_the_order_in_which_they_stand_on_each_other():
    listed = re.findall(r"^\| \**`([\w/]+)/`", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    place = {name.replace("/", "."): i for i, name in enumerate(listed)}
    assert len(place) > 20
    for name, path in MODULES.items():
        needed = imported(ast.parse(path.read_text()), whole=True) & set(MODULES)
        for other in {room(one) for one in needed - LAZY} & set(place):
            if room(name) in place and room(name).count(".") > 0 < other.count("."):
                assert place[other] <= place[room(name)], (name, other)
