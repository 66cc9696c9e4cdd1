"""A command from an analysis: its options are the settings, and what all commands have in common."""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from analyses.core import interruption, outputs, settings, tables
from analyses.core.analysis import Command, frame_of, remarks_of, taken_of

if TYPE_CHECKING:  # what only prints does not import it
    import xarray as xr


def build(command: Command) -> Any:
    """Return the command of an analysis, which is imported."""
    of = command.analysis.Settings

    def run(context: typer.Context, **given: object) -> None:
        with interruption.heard():
            _run(command, context, given)

    parameters = [_parameter("context", typer.Context), *_own(of), *_common(command, of)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command(command.word, help=command.text)(run)
    return typer.main.get_command(app)


def _run(command: Command, context: typer.Context, given: Mapping[str, Any]) -> None:
    """Check the place and the settings, compute, write, and print."""
    analysis = command.analysis
    out: Path | None = given["out"]
    formats = outputs.formats_of(given.get("formats"))
    if out is not None and not command.resumes:
        outputs.check(out, overwrite=given["overwrite"])
    chosen = _chosen(analysis.Settings, context, given)
    arguments = taken_of(analysis, {"progress": not given["quiet"], "out": out})
    console = Console()
    with (
        _styled(given.get("style")),
        nullcontext() if given["quiet"] or "progress" in arguments else console.status("computing"),
        _place(command, out, given.get("overwrite", False), formats) as folder,
    ):
        tree = analysis.run(chosen, **arguments)
        if folder is not None and not command.resumes:
            chosen.write(folder / settings.FILE)
        if folder is not None and out is not None and command.draws:
            _draw(command, tree, folder, out.name)
    said = remarks_of(analysis, tree)
    if given["json"]:
        print(_as_json(command, tree, said, out))
        return
    with tables.printed(full=given["full"]):
        console.print(analysis.table(tree))
    for remark in said:
        print(remark)
    if command.draws and out is not None:
        named = " and ".join(name.upper() for name in formats)
        print(f"Written to {out}: results.zarr, summary.csv, settings.toml and figures as {named}.")
        print(f"To look at: {out / outputs.REPORT}")
    elif out is not None:
        print(f"Written to {out}: read it lazily with inference.open_sweep.")


def _styled(name: str | None) -> AbstractContextManager[None]:
    """Draw in a style on top of the house style, if one is given."""
    if name is None:  # nothing to import
        return nullcontext()
    from analyses.core import figures

    return figures.styled(name)


def _draw(command: Command, tree: "xr.DataTree", folder: Path, name: str) -> None:
    """Write what an analysis writes, and the report of it, into a folder that will have a name."""
    # What only prints needs neither.
    from analyses.core import figures, reports

    tree.attrs[reports.COMMAND] = command.name
    write = outputs.rewrite_analysis if command.resumes else outputs.write_analysis
    with figures.collected() as views:
        write(command.analysis, tree, folder)
    reports.write(reports.run_in(folder, tree, command, views, name=name), folder)


def _as_json(command: Command, tree: "xr.DataTree", said: list[str], out: Path | None) -> str:
    """Return the answer, what is to be known beside it, and the summary's rows, for scripts."""
    frame = frame_of(command.analysis, tree)
    told: dict[str, object] = {"command": command.name, "out": None if out is None else str(out)}
    if command.draws:
        told["answer"] = list(command.analysis.answer(tree))
    told |= {"remarks": said, "summary": json.loads(frame.to_json(orient="records", double_precision=15))}
    return json.dumps(told, indent=2, ensure_ascii=False)


@contextmanager
def _place(
    command: Command, out: Path | None, overwrite: bool, formats: tuple[str, ...]
) -> Iterator[Path | None]:
    """Hold the place of the output, and give the folder to write into, if any."""
    if out is None:
        yield None
    elif command.resumes:
        with outputs.resumed(out, formats=formats):
            yield out
    else:
        with outputs.folder(out, overwrite=overwrite, formats=formats) as folder:
            yield folder


def _chosen(
    of: type[settings.BaseSettings], context: typer.Context, given: Mapping[str, Any]
) -> settings.BaseSettings:
    """Return the settings: those given win over those of a file, which win over those of a preset."""
    chosen: dict[str, object] = {}
    for name, preset in of.presets.items():
        chosen |= preset.defaults if given[name] else {}
    if given.get("config") is not None:
        chosen |= of.stored_in(given["config"])
    for one in fields(of):
        source = context.get_parameter_source(settings.option(one))
        if source is not None and source.name == "COMMANDLINE":
            chosen[one.name] = given[settings.option(one)]
    return of.from_values(chosen)


def _own(of: type[settings.BaseSettings]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of the settings that the command line takes, and of the presets."""
    for one in fields(of):
        if settings.facts(one).shown:
            yield _of_setting(one, of.presets)
    for name, preset in of.presets.items():
        flag = typer.Option(f"--{name}", help=preset.text)
        yield _parameter(name, Annotated[bool, flag], False)


def _of_setting(one: "Field[object]", presets: Mapping[str, settings.Preset]) -> inspect.Parameter:
    facts, name, default = settings.facts(one), settings.option(one), one.default
    others = [
        f"{preset.defaults[one.name]} if {flag}"
        for flag, preset in presets.items()
        if one.name in preset.defaults
    ]
    show = "; ".join([str(default), *others]) if others else facts.show
    kind: Any = one.type
    extra: dict[str, Any] = {"help": facts.text, "metavar": facts.metavar}
    if settings.is_list(one):
        kind = list[kind.__args__[0]]
        if isinstance(default, tuple) and default:
            extra["show_default"] = " ".join(str(v) if isinstance(v, str) else f"{v:g}" for v in default)
    if show is not None:
        extra["show_default"] = show
    required = settings.is_required(one)
    if not required and (settings.is_list(one) or show is not None):
        kind, default = kind | None, None
    names = [f"--{name.replace('_', '-')}"] if one.default is False else []
    made = typer.Argument(**extra) if facts.argument else typer.Option(*names, **extra)
    return _parameter(name, Annotated[kind, made], *([] if required else [default]))


def _common(command: Command, of: type[settings.BaseSettings]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of where a command writes and of how it prints."""
    words = command.resumes or f"Folder to write{', if any' * command.optional}; it must not exist yet."
    made = typer.Option(help=words)
    if command.optional:
        yield _parameter("out", Annotated[Path | None, made], None)
    else:
        default = inspect.Parameter.empty if command.told else Path("runs", command.word)
        yield _parameter("out", Annotated[Path, made], default)
    if command.draws:
        yield _parameter("config", _config(of), None)
        yield _parameter("formats", _Formats, None)
        yield _parameter("style", _Style, None)
    if not command.resumes:
        yield _parameter("overwrite", _Overwrite, False)
    yield _parameter("quiet", _Quiet, False)
    yield _parameter("full", _Full, False)
    yield _parameter("json", _Json, False)


def _parameter(name: str, annotation: object, default: object = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format", help="Of the figures: png, svg or pdf; may be repeated.", show_default="png svg"
    ),
]
_Style = Annotated[
    str | None,
    typer.Option(
        "--style", help="Of the figures: a style of matplotlib, or a file, on top of the house style."
    ),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")]
_Full = Annotated[bool, typer.Option("--full", help="Print all rows of the table, and what they mean.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the answer and the summary as JSON, for scripts.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]


def _config(of: type[settings.BaseSettings]) -> Any:
    """Return the type of the option that reads a file."""

    def take(context: typer.Context, path: Path | None) -> Path | None:
        # What must be given may stand in the file; what else it holds is read with the settings.
        if path is not None:
            known = of.stored_fields()
            stored = settings.read(path, known)
            context.default_map = {name: stored[name] for name in stored if settings.is_required(known[name])}
        return path

    words = "settings.toml of an earlier run; options given here win."
    return Annotated[Path | None, typer.Option("--config", help=words, callback=take, is_eager=True)]
