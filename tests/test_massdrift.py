"""`import massdrift`: the public names in one place."""

import runpy
import subprocess
import sys

import pytest

import inference
import massdrift
import mixture_models


def test_every_public_name_is_there_once():
    assert not set(inference.__all__) & set(mixture_models.__all__)
    for package in (inference, mixture_models):
        for name in package.__all__:
            assert getattr(massdrift, name) is getattr(package, name)
    assert dir(massdrift) == sorted([*inference.__all__, *mixture_models.__all__])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'massdrift' has no attribute 'forget'"):
        massdrift.forget  # noqa: B018


def test_the_package_is_the_command_too(monkeypatch, capsys):
    """As ``python -m massdrift --version``, in this process."""
    monkeypatch.setattr(sys, "argv", ["massdrift", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("massdrift", run_name="__main__")
    assert not stop.value.code
    assert capsys.readouterr().out.startswith("massdrift ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["companions", "precision"])
def test_a_module_can_be_the_first_name_that_is_used(name):
    """Names are loaded when they are used: none may need that another was used before."""
    program = f"import mixture_models; assert mixture_models.{name}.__name__.endswith({name!r})"
    subprocess.run([sys.executable, "-c", program], check=True)
