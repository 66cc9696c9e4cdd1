"""The ``massdrift`` command.

`analyses` imports its modules when they are first used, so that a command loads only what it needs.
"""

import os
import sys
import warnings
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import jax
import platformdirs
import typer
from rich.console import Console
from typer.core import TyperGroup

import analyses
from analyses.compare.settings import Settings
from analyses.core import interruption, outputs
from analyses.core.commands import Formats, Overwrite, Quiet, Work, say_written, writes
from analyses.core.config import read
from mixture_models.validation import InputError


class _Commands(TyperGroup):
    """All commands: what stops one is one sentence."""

    def invoke(self, ctx: Any) -> Any:
        with interruption.heard():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
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


def main() -> None:
    """Run the command; an unusable input is one sentence and exit code 2."""
    os.environ["MPLBACKEND"] = "Agg"  # read when a command first draws
    _keep_programs()
    try:
        app()
    except InputError as error:
        # A name may hold line breaks and other characters that a terminal obeys.
        sentence = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
        print(f"massdrift: {sentence}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        print(f"massdrift: there was not enough memory: {error}", file=sys.stderr)
        sys.exit(1)


def _keep_programs() -> None:
    """Keep compiled programs for the next command, unless JAX's own environment variables say otherwise."""
    # A program that another process is writing, or was killed while it wrote it, is compiled again.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    for name, value in (
        ("jax_compilation_cache_dir", platformdirs.user_cache_dir("massdrift")),
        ("jax_persistent_cache_min_compile_time_secs", 0.1),
    ):
        if name.upper() not in os.environ:
            os.environ[name.upper()] = str(value)  # for the workers that a command starts
            jax.config.update(name, value)


@app.callback(invoke_without_command=True)
def _version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        print(f"massdrift {version('massdrift')}")
        raise typer.Exit


def _setting(name: str, text: str) -> Any:
    """Return an option of `compare` that is None unless given, and shows the setting's default."""
    default = getattr(Settings, name)
    return typer.Option(help=text, show_default=str(default).lower() if default is True else str(default))


@app.command()
def compare(
    objectives: Annotated[
        list[str] | None,
        typer.Argument(
            help="Objectives and their arguments, as sft:replay=0.2; others are held against the first.",
            show_default="every registered one and its variants",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist yet.")] = Path("runs/compare"),
    config: Annotated[
        Path | None, typer.Option(help="settings.toml of an earlier run; options given here win.")
    ] = None,
    old_weight: Annotated[float | None, _setting("old_weight", "Target's mass of the old mode.")] = None,
    separation: Annotated[float | None, _setting("separation", "Distance of the target's modes.")] = None,
    dimension: Annotated[int | None, _setting("dimension", "Dimension of a behaviour, of any size.")] = None,
    start_old_weight: Annotated[
        float | None, _setting("start_old_weight", "Old weight at the start.")
    ] = None,
    start_new_gap: Annotated[
        float | None, _setting("start_new_gap", "Distance of the new mean from the target's at the start.")
    ] = None,
    start_old_drift: Annotated[
        float | None, _setting("start_old_drift", "Distance of the old mean from the target's at the start.")
    ] = None,
    num_steps: Annotated[int | None, _setting("num_steps", "Updates of a training.")] = None,
    batch_size: Annotated[int | None, _setting("batch_size", "Behaviours seen in an update.")] = None,
    learning_rate: Annotated[float | None, _setting("learning_rate", "Learning rate of plain SGD.")] = None,
    precision: Annotated[
        str | None, _setting("precision", "Of a batch's densities: float64, or the faster float32.")
    ] = None,
    num_replicates: Annotated[int | None, _setting("num_replicates", "Trainings of each objective.")] = None,
    seed: Annotated[int | None, _setting("seed", "Seed of all random numbers.")] = None,
    record_every: Annotated[int | None, _setting("record_every", "Steps between two records.")] = None,
    common_random_numbers: Annotated[
        bool | None, _setting("common_random_numbers", "Give every objective of a replicate the same draws.")
    ] = None,
    formats: Formats = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compare post-training objectives: what is left of the old task, and what has moved."""
    given = {name: value for name, value in locals().items() if name in Settings.names()}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**changes) if config is None else Settings.read(config, **changes)
    chosen = outputs.formats_of(formats)
    with outputs.folder(out, overwrite=overwrite, formats=chosen) as folder:
        tree = analyses.compare.run(settings, progress=not quiet)
        analyses.compare.write(tree, settings, folder)
    Console().print(analyses.compare.table(tree))
    if "no_exact_side" in tree.attrs:
        print(f"No exact flow beside the trainings: {tree.attrs['no_exact_side']}.")
    say_written(out, chosen)


_Separations = Annotated[
    list[float] | None,
    typer.Argument(help="Separations of the modes, increasing.", show_default="those of the figure"),
]


@app.command()
@writes("runs/mass-forgetting")
def mass_forgetting(
    separations: _Separations = None,
    start_old_weight: Annotated[float, typer.Option(help="Old weight at the start.")] = 0.5,
    end_time: Annotated[float, typer.Option(help="Last time, steps times learning rate.")] = 1e6,
) -> Work:
    """How fast does SFT empty the old mode, and does the weight tell the truth? Exact, with asymptotes."""
    analysis = analyses.mass_forgetting
    return Work(
        analysis,
        lambda: analysis.run(
            separations or analysis.SEPARATIONS, start_old_weight=start_old_weight, end_time=end_time
        ),
        spins=True,
    )


@app.command()
@writes("runs/drift")
def drift(
    separations: _Separations = None,
    old_weight: Annotated[float, typer.Option(help="Target's mass of the old mode.")] = 0.5,
    start_old_weight: Annotated[float, typer.Option(help="Old weight at the start.")] = 0.9,
    fit_from: Annotated[
        list[float] | None,
        typer.Option(help="Least separation of a window to regress; may be repeated.", show_default="5 6 7"),
    ] = None,
    num_replicates: Annotated[int, typer.Option(help="Finite-batch trainings of each estimator.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    quiet: Quiet = False,
) -> Work:
    """How does the drift of on-policy learning fall with separation? A posterior of its decay rate."""
    analysis = analyses.drift
    return Work(
        analysis,
        lambda: analysis.run(
            separations or analysis.SEPARATIONS,
            old_weight=old_weight,
            start_old_weight=start_old_weight,
            fit_from=fit_from or analysis.FIT_FROM,
            num_replicates=num_replicates,
            seed=seed,
            progress=not quiet,
        ),
    )


@app.command()
@writes("runs/geometry")
def geometry(
    separations: _Separations = None,
    old_weight: Annotated[
        list[float] | None,
        typer.Option(help="Target's mass of the old mode; may be repeated.", show_default="0.1 0.3 0.5 0.8"),
    ] = None,
) -> Work:
    """How fast does on-policy learning return to its target? Measured against the Fisher information."""
    analysis = analyses.geometry
    return Work(
        analysis,
        lambda: analysis.run(
            separations or analysis.SEPARATIONS, old_weights=old_weight or analysis.OLD_WEIGHTS
        ),
        spins=True,
    )


@app.command()
@writes("runs/replay")
def replay(
    shares: Annotated[
        list[float] | None,
        typer.Argument(help="Replayed shares of reverse KL, increasing.", show_default="0 0.1 0.2 0.5"),
    ] = None,
    separation: Annotated[float, typer.Option(help="Distance of the target's modes.")] = 4.0,
    old_weight: Annotated[float, typer.Option(help="Target's mass of the old mode.")] = 0.5,
    start_old_weight: Annotated[float, typer.Option(help="Old weight at the start.")] = 0.05,
    batch_size: Annotated[int, typer.Option(help="Behaviours seen in an update.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of plain SGD.")] = 0.05,
    num_replicates: Annotated[int, typer.Option(help="Trainings of each share.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
) -> Work:
    """What does replay change: the optimum of forward KL, and the batches of reverse KL?"""
    analysis = analyses.replay
    return Work(
        analysis,
        lambda: analysis.run(
            shares or analysis.SHARES,
            separation=separation,
            old_weight=old_weight,
            start_old_weight=start_old_weight,
            batch_size=batch_size,
            learning_rate=learning_rate,
            num_replicates=num_replicates,
            seed=seed,
        ),
        spins=True,
    )


@app.command("near-on-policy")
@writes("runs/near-on-policy")
def near_on_policy(
    separation: Annotated[float, typer.Option(help="Distance of the target's modes.")] = 4.0,
    old_weight: Annotated[float, typer.Option(help="Target's mass of the old mode.")] = 0.5,
    start_old_weight: Annotated[float, typer.Option(help="Old weight at the start.")] = 0.7,
    start_new_gap: Annotated[
        float, typer.Option(help="Distance of the new mean from the target's at the start.")
    ] = 0.0,
    reward_gap: Annotated[float, typer.Option(help="What a new behaviour earns more than an old one.")] = 1.0,
    anchor: Annotated[float, typer.Option(help="SDFT's, in the map over demonstrations.")] = 0.3,
    ema: Annotated[float, typer.Option(help="SDFT's, in the map over demonstrations.")] = 0.05,
    dimension: Annotated[int, typer.Option(help="Dimension of a behaviour in the trainings.")] = 2,
    num_steps: Annotated[int, typer.Option(help="Updates of a training.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Behaviours seen in an update.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of plain SGD.")] = 0.05,
    num_points: Annotated[int, typer.Option(help="Values of each setting on a map.")] = 13,
    num_trained: Annotated[
        int, typer.Option(help="Values of a map's abscissa at which is trained, in three rows.")
    ] = 5,
    num_replicates: Annotated[int, typer.Option(help="Trainings at each of these points.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    quiet: Quiet = False,
) -> Work:
    """At which settings do SDFT, TTT-Discover and OAPL forget? Maps: exact, by theory, and trained."""
    settings = {name: value for name, value in locals().items() if name != "quiet"}
    return Work(analyses.near_on_policy, lambda: analyses.near_on_policy.run(**settings, progress=not quiet))


@app.command()
@writes(optional=True)
def plan(
    objectives: Annotated[
        list[str] | None,
        typer.Argument(
            help="Objectives and their arguments, as sdft:anchor=0.2.",
            show_default="every registered one and its variants",
        ),
    ] = None,
    separation: Annotated[
        float | None,
        typer.Option(help="Distance of the modes [Mahalanobis]; or samples of both.", show_default="4.0"),
    ] = None,
    old_weight: Annotated[float, typer.Option(help="Target's mass of the old mode.")] = 0.5,
    start_old_weight: Annotated[
        float | None, typer.Option(help="Old weight now; or samples of the learner.", show_default="0.7")
    ] = None,
    old_samples: Annotated[
        Path | None, typer.Option(help="Samples of the old task, to estimate the separation from.")
    ] = None,
    new_samples: Annotated[Path | None, typer.Option(help="Samples of the new task.")] = None,
    learner_samples: Annotated[
        Path | None, typer.Option(help="Samples of the learner now, to estimate its old weight from.")
    ] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out rows that are not finite.")
    ] = False,
    num_steps: Annotated[int, typer.Option(help="Updates of the training.")] = 500,
    batch_size: Annotated[int, typer.Option(help="Behaviours seen in an update.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of plain SGD.")] = 0.05,
    keep: Annotated[float, typer.Option(help="Share of the old behaviour now that shall be left.")] = 0.9,
    check: Annotated[bool, typer.Option("--check", help="Also train and compare; takes a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the trainings.")] = 0,
) -> Work:
    """Plan a training: what each objective will forget, and which setting keeps enough. No simulation."""
    settings: dict[str, Any] = {
        "separation": separation,
        "old_weight": old_weight,
        "start_old_weight": start_old_weight,
        "estimated": analyses.plan.estimate(old_samples, new_samples, learner_samples, drop_missing),
        "num_steps": num_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "keep": keep,
        "check": check,
        "seed": seed,
    }
    return Work(analyses.plan, lambda: analyses.plan.run(objectives, **settings), spins=True)


_Workers = Annotated[int | None, typer.Option(help="Processes of a Dask cluster on this machine.")]
_Scheduler = Annotated[str | None, typer.Option(help="Address of a running Dask scheduler.")]
_Memory = Annotated[
    float | None, typer.Option(help="GiB that a process may take.", show_default="half of what is free")
]


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="TOML file: settings, and a table [grid] of axes.")],
    out: Annotated[Path, typer.Option(help="Store to write, ends in .zarr; one begun before is resumed.")],
    workers: _Workers = None,
    scheduler: _Scheduler = None,
    memory: _Memory = None,
    quiet: Quiet = False,
) -> None:
    """Train over a grid of settings, in chunks that an interruption cannot lose; run again to go on."""
    with outputs.resumed(out):
        tree = analyses.sweep.run(
            grid,
            out,
            workers=workers,
            scheduler=scheduler,
            memory=None if memory is None else memory * 2**30,
            progress=not quiet,
        )
    Console().print(analyses.sweep.table(tree))
    print(f"Written to {out}: read it lazily with inference.open_sweep.")


@app.command()
@writes("runs/phase")
def phase(
    separations: Annotated[
        list[float] | None,
        typer.Argument(help="Separations of the modes, increasing.", show_default="1.5 2 … 7"),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(help="Behaviours in an update; may be repeated.", show_default="2 4 8 32 64"),
    ] = None,
    knob: Annotated[
        list[float] | None,
        typer.Option(
            help="Replay of SFT and RL, anchor of SDFT; may be repeated.", show_default="0 0.05 0.2"
        ),
    ] = None,
    old_weight: Annotated[float, typer.Option(help="Target's mass of the old mode.")] = 0.5,
    start_old_weight: Annotated[float, typer.Option(help="Old weight at the start.")] = 0.02,
    start_new_gap: Annotated[
        float, typer.Option(help="Distance of the new mean from the target's at the start.")
    ] = 1.0,
    num_steps: Annotated[int, typer.Option(help="Updates of a training.")] = 100,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of plain SGD.")] = 0.2,
    num_replicates: Annotated[int, typer.Option(help="Trainings at every point.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    workers: _Workers = None,
    *,
    out: Path,
    quiet: Quiet = False,
) -> Work:
    """Where does which objective forget? A map over separation, batch size, and replay or anchor."""
    analysis = analyses.phase
    return Work(
        analysis,
        lambda: analysis.run(
            separations or analysis.SEPARATIONS,
            batch_sizes=batch_size or analysis.BATCH_SIZES,
            knobs=analysis.KNOBS if knob is None else knob,
            old_weight=old_weight,
            start_old_weight=start_old_weight,
            start_new_gap=start_new_gap,
            num_steps=num_steps,
            learning_rate=learning_rate,
            num_replicates=num_replicates,
            seed=seed,
            keep=outputs.kept_beside(out),
            workers=workers,
            progress=not quiet,
        ),
    )


@reproduce.command()
@writes("runs/chen2025")
def chen2025(
    num_replicates: Annotated[int, typer.Option(help="Trainings of each run.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    quiet: Quiet = False,
) -> Work:
    """Reproduce Chen et al. 2025 (arXiv:2510.18874): what retains, the objective or a factor of 0.005?"""
    analysis = analyses.chen2025
    return Work(analysis, lambda: analysis.run(num_replicates, seed, progress=not quiet))


@app.command()
@writes()
def measure(
    run: Annotated[
        Path, typer.Argument(help="Samples of the checkpoints: .npz, .npy, .parquet, .nc or .zarr.")
    ],
    old_reference: Annotated[
        Path, typer.Option(help="Samples of the old task, in a file of the same kinds.")
    ],
    new_reference: Annotated[Path, typer.Option(help="Samples of the new task.")],
    method: Annotated[
        str, typer.Option(help="laplace (fast), nuts, or auto: fast where it can be trusted.")
    ] = "auto",
    covariance: Annotated[str, typer.Option(help="shared, axis, proportional, unequal or auto.")] = "auto",
    tails: Annotated[str, typer.Option(help="Modes' tails: gaussian, student or auto.")] = "auto",
    neither: Annotated[bool, typer.Option("--neither", help="Add a component for neither task.")] = False,
    displacement_scale: Annotated[
        float, typer.Option(help="Prior scale of a displacement [Mahalanobis].")
    ] = 0.5,
    num_draws: Annotated[int, typer.Option(help="Draws of the posterior.")] = 1000,
    max_features: Annotated[int, typer.Option(help="Project to this many coordinates above it.")] = 64,
    memory: Annotated[
        float | None,
        typer.Option(
            help="GiB that a checkpoint may take; a larger one is streamed.",
            show_default="40 % of the machine's",
        ),
    ] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out rows that are not finite.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    quiet: Quiet = False,
) -> Work:
    """Measure a real run: old weight and drift of its checkpoints, from samples, with error bars."""
    analysis = analyses.measure
    return Work(
        analysis,
        lambda: analysis.run(
            run,
            old_reference,
            new_reference,
            method=method,
            covariance=covariance,
            tails=tails,
            neither=neither,
            displacement_scale=displacement_scale,
            num_draws=num_draws,
            max_features=max_features,
            drop_missing=drop_missing,
            memory=None if memory is None else memory * 2**30,
            seed=seed,
            progress=not quiet,
        ),
    )


@app.command()
@writes()
def evals(
    base: Annotated[
        list[str],
        typer.Argument(help="Logs of the base: folders, files or globs. Without --run, of the runs too."),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: logs of a run, as sft=logs/sft; may be repeated.", show_default=False),
    ] = None,
    base_name: Annotated[str, typer.Option(help="What folders or columns call the base.")] = "base",
    new_task: Annotated[
        list[str] | None,
        typer.Option(help="A task that was learnt, not to be kept; may be repeated.", show_default=False),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric or scorer to read, the first that a log has; may be repeated.",
            show_default="the one that says right or wrong",
        ),
    ] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="Filter of lm-evaluation-harness; may be repeated.",
            show_default="none, strict-match, flexible-extract",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=COLUMN of a table, as item=question_id; may be repeated.", show_default=False
        ),
    ] = None,
    num_choices: Annotated[
        int | None,
        typer.Option(help="Answers that every item of a table offers.", show_default="free answers"),
    ] = None,
    method: Annotated[
        str, typer.Option(help="laplace (fast), nuts, or auto: fast where it can be trusted.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    quiet: Quiet = False,
) -> Work:
    """Measure forgetting from evaluation logs: graded answers of a base and of what was trained from it."""
    analysis = analyses.evals
    logs, columns = analysis.logs_of(base, run or [], base_name), analysis.columns_of(column or [])
    return Work(
        analysis,
        lambda: analysis.run(
            logs,
            base=base_name,
            metric=metric or [],
            filter=filter or [],
            columns=columns,
            num_choices=num_choices,
            new_tasks=new_task or [],
            method=method,
            seed=seed,
            progress=not quiet,
        ),
    )


@app.command()
@writes()
def measure_scores(
    files: Annotated[
        list[Path],
        typer.Argument(help="Scores, a row a sample: .jsonl, .csv or .parquet.", metavar="FILE..."),
    ],
    old_column: Annotated[
        str, typer.Option(help="Column of the log-likelihoods under the old-task reference [nat].")
    ] = "old_log_likelihood",
    new_column: Annotated[
        str, typer.Option(help="Column of the log-likelihoods under the new-task reference [nat].")
    ] = "new_log_likelihood",
    checkpoint_column: Annotated[
        str | None,
        typer.Option(
            help="Column of the checkpoints.",
            show_default="checkpoint; where there is none, each file is a checkpoint",
        ),
    ] = None,
    weight_prior: Annotated[
        tuple[float, float], typer.Option(help="Shapes of the Beta prior of the old weight, each at least 1.")
    ] = (1.0, 1.0),
    num_draws: Annotated[int, typer.Option(help="Draws of the posterior.")] = 4000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
) -> Work:
    """Measure a real run by scores: its old weight, exactly, from two log-likelihoods a sample. No drift."""
    analysis = analyses.measure_scores
    return Work(
        analysis,
        lambda: analysis.run(
            files,
            old=old_column,
            new=new_column,
            checkpoint=checkpoint_column,
            weight_prior=weight_prior,
            num_draws=num_draws,
            seed=seed,
        ),
        spins=True,
    )


@app.command("plan-evals")
@writes(optional=True)
def plan_evals(
    of: Annotated[
        str, typer.Option(help="What shall be known: old_weight, drift, lost or accuracy_change.")
    ] = "old_weight",
    width: Annotated[
        float | None, typer.Option(help="Wanted width of its interval.", show_default=False)
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(help="Or wanted probability that its interval shows a loss.", show_default="0.9"),
    ] = None,
    mass_lost: Annotated[float, typer.Option(help="Supposed mass lost of a run, m.")] = 0.05,
    drift: Annotated[float, typer.Option(help="Supposed drift of the items' logits.")] = 0.0,
    drift_spread: Annotated[float, typer.Option(help="Supposed spread of it over items.")] = 0.0,
    rope: Annotated[float, typer.Option(help="A loss of up to this much counts as none.")] = 0.01,
    base: Annotated[
        list[str] | None,
        typer.Option(
            help="Log of the base, from which its items are known; may be repeated.", show_default=False
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Task of the log that is planned for.", show_default="its only one")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric of the log to read; may be repeated.", show_default="as evals"),
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(help="The base's accuracy; or a log of it.", show_default="0.6")
    ] = None,
    item_sd: Annotated[
        float | None,
        typer.Option(help="Standard deviation of items' logits; or a log of the base.", show_default="6.0"),
    ] = None,
    num_choices: Annotated[
        int | None, typer.Option(help="Answers that every item offers.", show_default="free answers")
    ] = None,
    guess_rate: Annotated[
        float | None, typer.Option(help="Probability of a lucky guess.", show_default="1/choices")
    ] = None,
    answers: Annotated[
        list[int] | None,
        typer.Option(help="Answers an item to try; may be repeated.", show_default="1 2 4 8 16 32"),
    ] = None,
    base_answers: Annotated[
        int | None, typer.Option(help="Answers of the base to each item.", show_default="as of the run")
    ] = None,
    max_items: Annotated[int, typer.Option(help="Items that there are.")] = 1_000_000,
    seed_sd: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation between training seeds; plans for the arm.", show_default="one run"
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Training seeds of the arm.", show_default="enough")
    ] = None,
) -> Work:
    """Plan an evaluation: how many items, answers and training seeds show a loss, or measure it so well."""
    settings = locals().copy()
    return Work(analyses.plan_evals, lambda: analyses.plan_evals.run(**settings), spins=True)


@app.command("compare-runs")
@writes("runs/compare-runs")
def compare_runs(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Outputs of measure or measure-scores, as FOLDER or NAME=FOLDER; the first is the base.",
            metavar="FOLDER...",
        ),
    ],
    at: Annotated[str, typer.Option(help="final, matched_gain, or the name of a checkpoint.")] = "final",
    gain: Annotated[float | None, typer.Option(help="New gap at which runs are matched.")] = None,
    weight_rope: Annotated[
        float, typer.Option(help="Differences of old weight within it count as none.")
    ] = 0.0,
    drift_rope: Annotated[
        float, typer.Option(help="Differences of old drift within it count as none.")
    ] = 0.0,
    *,
    out: Path,
) -> Work:
    """Compare measured runs: which kept more old mass, and which drifted less?"""
    if out.resolve() in {analyses.compare_runs.named(folder)[1].resolve() for folder in folders}:
        raise InputError(f"{out} must not be one of the runs that are compared")
    rope = {"old_weight": weight_rope, "old_drift": drift_rope}
    return Work(
        analyses.compare_runs, lambda: analyses.compare_runs.run(folders, at=at, gain=gain, rope=rope)
    )


@app.command()
def digits(
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted one goes on.")] = Path(
        "runs/digits"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A small run that shows that all works, not what is true.")
    ] = False,
    num_seeds: Annotated[
        int | None, typer.Option(help="Networks, each trained by itself.", show_default="3; 2 if quick")
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(help="Images of a checkpoint.", show_default="1000; 500 if quick")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.", show_default="0")] = None,
    truth: Annotated[
        bool,
        typer.Option("--truth", help="Find what answers have lost by brute force too; slow."),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="settings.toml of an earlier run; options given here win.")
    ] = None,
    formats: Formats = None,
    quiet: Quiet = False,
) -> None:
    """Post-train small transformers on real digits by each objective, measure them, and test the theory."""
    # Here, as scikit-learn and Equinox take seconds to import.
    from analyses.digits import evals_report, figures, report, run
    from analyses.digits.settings import Settings as DigitsSettings

    given = {"num_seeds": num_seeds, "num_samples": num_samples, "seed": seed}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if config is not None:
        changes = read(config, [field.name for field in fields(DigitsSettings)]) | changes
    settings = DigitsSettings.quick(**changes) if quick else DigitsSettings(**changes)
    chosen = outputs.formats_of(formats)
    with outputs.resumed(out, formats=chosen):
        tree = run.run(settings, out, truth=truth, progress=not quiet)
        figures.write(tree, out)
    console = Console()
    console.print(report.agreement(tree))
    console.print(report.table(tree))
    console.print(evals_report.table(tree))
    print("\n".join(filter(None, (report.words(tree), evals_report.words(tree)))), end="\n\n")
    say_written(out, chosen)
