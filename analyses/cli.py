"""The ``massdrift`` command: a loop over the analyses, each of which is imported when it is chosen."""

import atexit
import gc
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from analyses.registry import COMMANDS, Command


class _Later(TyperCommand):
    """A command that is made of its analysis' settings once it is chosen."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        from analyses.core import interruption

        (chosen,) = (command for command in COMMANDS if command.word == self.name)
        with interruption.heard():
            from analyses.core.commands import build

            return build(chosen).make_context(info_name, args, *rest, **extra)


app = typer.Typer(
    help="How much a generative model forgets in post-training, in which way, and under which objective.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    # Brackets in a help text are units and names of tables.
    rich_markup_mode="markdown",
)
reproduce = typer.Typer(
    help="Reproduce a published simulation.", no_args_is_help=True, rich_markup_mode="markdown"
)
app.add_typer(reproduce, name="reproduce")


@app.callback(invoke_without_command=True)
def _version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        print(f"massdrift {version('massdrift')}")
        raise typer.Exit


@app.command(
    "report", help="Make one page to look at of outputs, several side by side. No network is needed."
)
def _report(
    folders: Annotated[
        list[str], typer.Argument(help="Outputs, as FOLDER or NAME=FOLDER.", metavar="FOLDER...")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write.", show_default="report.html in the folder; of several, runs/report.html"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file.")] = False,
) -> None:
    from analyses.core import interruption

    with interruption.heard():
        from analyses.report import report

        print(f"To look at: {report(folders, out, overwrite=overwrite)}")


def _add(command: Command) -> None:
    group = reproduce if " " in command.name else app
    group.command(command.word, cls=_Later, help=command.text)(lambda: None)


for _command in COMMANDS:
    _add(_command)


def main() -> None:
    """Run the command; an unusable input is one sentence and exit code 2."""
    os.environ["MPLBACKEND"] = "Agg"  # read when a command first draws
    # Tracing leaves millions of objects. To look through them for garbage again and again, and once more
    # at the end, takes two seconds of 25.
    gc.set_threshold(20_000, 10, 10)
    atexit.register(gc.freeze)
    _keep_programs()
    try:
        app()
    except MemoryError as error:
        print(f"massdrift: there was not enough memory: {error}", file=sys.stderr)
        sys.exit(1)
    except ValueError as error:
        from mixture_models.validation import InputError

        if not isinstance(error, InputError):
            raise
        # A name may hold line breaks and other characters that a terminal obeys.
        sentence = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
        print(f"massdrift: {sentence}", file=sys.stderr)
        sys.exit(2)


def _keep_programs() -> None:
    """Keep compiled programs for the next command, unless JAX's own environment variables say otherwise."""
    # A program that another process is writing, or was killed while it wrote it, is compiled again.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        import platformdirs

        os.environ["JAX_COMPILATION_CACHE_DIR"] = platformdirs.user_cache_dir("massdrift")
    # JAX reads both when it is imported, here and in the workers that a command starts.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
