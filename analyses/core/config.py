"""The settings of a command as a file: every run writes ``settings.toml``, and ``--config`` reads it.

The file holds the options and arguments of the command by name, without those that say where it writes and
how it prints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

from inference.storage import files
from inference.storage.reading import read_toml
from mixture_models.validation import InputError

#: What every output folder calls the file.
FILE = "settings.toml"

# Parameters that no number depends on.
_NOT_SETTINGS = {"config", "formats", "out", "overwrite", "quiet", "workers", "memory"}


def _take(context: typer.Context, path: Path | None) -> Path | None:
    """Make what a file holds the defaults of the command's parameters, so that those given win."""
    if path is not None:
        context.default_map = read(path, _names(context))
    return path


#: The parameter of a command that can read its settings.
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="settings.toml of an earlier run; options given here win.",
        callback=_take,
        is_eager=True,
    ),
]


def read(path: Path, names: list[str]) -> dict[str, Any]:
    """Return the settings in a file, which may hold some names.

    Raises:
        InputError: the file is missing, is not TOML, or holds an unknown setting.
    """
    stored = read_toml(path)
    unknown = sorted(set(stored) - set(names))
    if unknown:
        raise InputError(f"{path} may set {', '.join(names)}; got {', '.join(unknown)}")
    return stored


def write(settings: Mapping[str, Any], path: Path) -> None:
    """Write settings, from which `read` returns them."""
    files.write(path, tomli_w.dumps(settings).encode())


def write_of(context: typer.Context, folder: Path) -> None:
    """Write the settings of the command that runs into a folder; those that are not set are left out."""
    settings = {name: _plain(context.params[name]) for name in _names(context)}
    write({name: value for name, value in settings.items() if value not in (None, [])}, folder / FILE)


def _names(context: typer.Context) -> list[str]:
    names = [parameter.name for parameter in context.command.params]
    return [name for name in names if name is not None and name not in {*_NOT_SETTINGS, "help"}]


def _plain(value: Any) -> Any:
    """Return a parameter's value as TOML can hold it."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
