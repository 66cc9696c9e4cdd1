"""What all commands that write a folder have in common."""

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console

from analyses.core import config, outputs

if TYPE_CHECKING:  # a command loads only what it needs
    import xarray as xr

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format", help="Of the figures: png, svg or pdf; may be repeated.", show_default="png svg"
    ),
]


class Work(NamedTuple):
    """What a command does once its place is held.

    Attributes:
        analysis: module with ``write(tree, folder)`` and ``table(tree)``, and ``remarks(tree)`` where there
            is more to say.
        run: computes the result.
        spins: whether a spinner shows that it runs, as it has no progress bar of its own.
    """

    analysis: Any
    run: "Callable[[], xr.DataTree]"
    spins: bool = False


def writes(
    default: str | None = None, *, optional: bool = False
) -> Callable[[Callable[..., Work]], Callable[..., None]]:
    """Make a command of a function that returns its `Work`: it writes a folder and prints the table.

    The command takes ``--out``, ``--config``, ``--format``, ``--overwrite`` and ``--quiet`` beside what the
    function takes; ``out`` and ``quiet`` are handed on to a function that takes them.

    Args:
        default: folder to write; None: it must be given, or, if ``optional``, nothing is written.
        optional: whether a command without ``--out`` only prints.
    """

    def decorate(function: Callable[..., Work]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters

        @functools.wraps(function)
        def command(context: typer.Context, **given: Any) -> None:
            out, quiet, overwrite = given["out"], given["quiet"], given["overwrite"]
            formats = outputs.formats_of(given["formats"])
            if out is not None:
                outputs.check(out, overwrite=overwrite)
            work = function(**{name: given[name] for name in own})
            console = Console()
            with console.status("computing") if work.spins and not quiet else nullcontext():
                if out is None:
                    tree = work.run()
                else:
                    with outputs.folder(out, overwrite=overwrite, formats=formats) as folder:
                        tree = work.run()
                        work.analysis.write(tree, folder)
                        config.write_of(context, folder)
            console.print(work.analysis.table(tree))
            for remark in getattr(work.analysis, "remarks", lambda _: [])(tree):
                print(remark)
            if out is not None:
                say_written(out, formats)

        common = [_out(default, optional), _CONFIG, _FORMATS, _OVERWRITE, _QUIET]
        parameters = [
            _parameter("context", typer.Context),
            *(
                p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                for p in own.values()
                if p.name not in ("out", "quiet")
            ),
            *common,
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def say_written(out: Path, formats: tuple[str, ...]) -> None:
    """Print what a command has written."""
    named = " and ".join(name.upper() for name in formats)
    print(f"Written to {out}: results.zarr, summary.csv, settings.toml and figures as {named}.")


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_CONFIG = _parameter("config", config.Config, None)
_FORMATS = _parameter("formats", Formats, None)
_OVERWRITE = _parameter("overwrite", Overwrite, False)
_QUIET = _parameter("quiet", Quiet, False)


def _out(default: str | None, optional: bool) -> inspect.Parameter:
    words = f"Folder to write{', if any' if optional else ''}; it must not exist yet."
    option = typer.Option(help=words)
    if optional:
        return _parameter("out", Annotated[Path | None, option], None)
    return _parameter("out", Annotated[Path, option], *([] if default is None else [Path(default)]))
