"""Finite-batch training: thousands of SVI runs of an objective at once, in one compiled program."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from tqdm.auto import tqdm

from inference import results
from inference.engine import memory
from inference.engine.blas import on_one_thread
from inference.engine.chunks import chunk_sizes, run_together
from inference.engine.programs import Program
from inference.progress import hidden
from inference.storage import kept
from inference.training import replicates
from inference.training.checks import (
    MOST_STEPS,
    check_batch,
    check_objectives,
    check_rewards,
    check_setting,
)
from inference.training.loop import arithmetic, first_record
from inference.training.replicates import Batched, Ended, check_batches, schedule_of
from inference.training.settings import training_settings
from mixture_models.mixture.mixture import Mixture, MixturePair
from mixture_models.objectives import Objective
from mixture_models.validation import InputError, flag, integer

# Among the variables of a chunk that is kept.
_DIVERGED = "diverged_step"

# Of what is recorded: as it is trained, joined, stacked by objective, and handed on.
_COPIES = 3


@on_one_thread
def train(
    objectives: Objective | Sequence[Objective],
    start: Mixture,
    target: Mixture,
    *,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    num_replicates: int,
    seed: int,
    record_every: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate_factors: Mapping[str, float] | None = None,
    common_random_numbers: bool = True,
    precision: str = "float64",
    dimension: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Train every objective from ``start``, ``num_replicates`` times, on fresh batches.

    One step is θ ← θ - η f ∘ ĝ(θ), where ĝ is the minibatch gradient of the objective's divergence, η the
    learning rate and f the learning rate factors. Arithmetic is float64, whatever the caller's
    setting, on float32 random numbers; with ``precision="float32"`` a batch's densities are float32 too.

    Args:
        objectives: one objective or several; those that differ in numbers only share a program.
        start: the learner's parameters at step 0.
        target: the true target; its modes must differ.
        num_steps: number of updates, at least 1.
        batch_size: samples seen in an update, at least 1 (2 for a leave-one-out baseline).
        learning_rate: η > 0.
        num_replicates: number of independent trainings of each objective.
        seed: whole number; equal seeds give equal numbers.
        record_every: steps between two records; step 0 and the last step are always recorded.
        optimizer: an optax transformation in the place of plain SGD; it holds its own learning rate.
        learning_rate_factors: multiplies the updates of the params it names; 0 freezes one.
        common_random_numbers: whether replicate i of every objective sees the same random numbers, so that
            differences between objectives are paired.
        precision: ``"float64"`` or the faster ``"float32"``, see `mixture_models.losses.precision`.
        dimension: of samples, of any size; start and target name the first coordinates of their means, and
            the others are 0. The training is simulated in the span of the means, see `span`: the law of what
            is recorded is the same, vectors are not recorded, and the cost does not grow with it.
            For plain SGD, the mixture learner, and one covariance that is a multiple of the identity. None
            simulates all coordinates of start and target.
        progress: whether a terminal shows a progress bar.

    Returns:
        DataTree with ``/trajectory`` (dims objective, chain, draw, step, and feature), ``/final`` and
        ``/trajectory_stats`` (``diverged_step``, -1 for none). A replicate that becomes non-finite, or
        leaves the range of `mixture_models.mixture.sensible_range`, is NaN from then on. ``loss`` is the
        divergence's estimate at the recorded parameters, in nats.

    Raises:
        InputError: an argument out of range, before anything is computed.
    """
    chosen = check_objectives(objectives)
    num_steps = integer("num_steps", num_steps, at_most=MOST_STEPS)
    own = training_settings(
        batch_size=batch_size,
        learning_rate=learning_rate,
        num_replicates=num_replicates,
        seed=seed,
        record_every=record_every,
        optimizer=optimizer,
        learning_rate_factors=learning_rate_factors,
        precision=precision,
        dimension=dimension,
        progress=progress,
    )
    check_setting(start, target)
    check_rewards(chosen, start, target)
    trained = [own.trained(start, [(objective, target)]) for objective in chosen]
    problems = [(objective, begin, toward) for begin, [(objective, toward)] in trained]
    settings = {
        "objectives": [objective.name for objective in chosen],
        "num_steps": num_steps,
        "common_random_numbers": flag("common_random_numbers", common_random_numbers),
    } | own.listed()
    with arithmetic():
        programs = [own.program_of(objective) for objective, *_ in problems]
        mixtures = [(inner_start, inner_target) for _, inner_start, inner_target in problems]
        recorded = [_recorded(*pair) for pair in zip(programs, mixtures, strict=True)]
        if any(set(shapes) != set(recorded[0]) for shapes in recorded):
            raise InputError("objectives trained together must have learners that record the same variables")
        num_chunks, size = chunk_sizes(own.num_replicates)
        check_batch(own.batch_size, max(inner_start.dim for inner_start, _ in mixtures))
        floats = len(problems) * own.num_replicates * (1 + sum(map(math.prod, recorded[0].values())))
        memory.check_fits(
            "what is recorded",
            _COPIES * 8.0 * floats * (num_steps // own.record_every + 2),
            "take fewer replicates, steps or objectives, or record fewer steps (record_every)",
        )
        steps = results.recorded_steps(num_steps, own.record_every)
        settings_of, rate = jax.tree.map(jnp.asarray, mixtures), jnp.asarray(own.learning_rate)
        schedule = schedule_of(steps, own.batch_size * size)
        compiling: dict[Program, Callable[..., None]] = {}
        tasks: list[Callable[..., dict[str, np.ndarray]]] = []
        for index, (program, setting) in enumerate(zip(programs, settings_of, strict=True)):
            chunks = own.keys(0 if common_random_numbers else index)
            compiling[program.static] = partial(
                replicates.compile_run, Batched(program), chunks[0], setting, rate, schedule
            )
            facts = (problems[index], *own.facts, steps)
            tasks += [
                partial(
                    _kept,
                    partial(replicates.run, Batched(program), chunk, setting, rate, schedule),
                    (*facts, np.asarray(jax.random.key_data(chunk))),
                    kept.folder(),
                )
                for chunk in chunks
            ]
        runs = [
            (Batched(program), setting, schedule)
            for program, setting in zip(programs, settings_of, strict=True)
        ]
        check_batches(runs, chunks[0], rate, own.batch_size)
        # Before the trainings: threads that share a program would each compile it.
        run_together(list(compiling.values()), arithmetic, lambda _: None)
        total = len(tasks) * size * int(schedule.counts.sum())
        with tqdm(total=total, unit="step", unit_scale=True, disable=hidden(progress)) as bar:
            ended = run_together(tasks, arithmetic, bar.update)
    trajectories = [
        {name: np.concatenate([part[name] for part in parts])[: own.num_replicates] for name in parts[0]}
        for parts in zip(*[iter(ended)] * num_chunks, strict=True)
    ]
    diverged_steps = [trajectory.pop(_DIVERGED) for trajectory in trajectories]
    return results.training_tree(
        chosen, trajectories, diverged_steps, steps, {"start": start, "target": target}, settings
    )


def _kept(
    run: Callable[..., Ended], facts: object, folder: Path | None, report: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """Return a chunk that is kept, or train it now and keep it."""
    return kept.arrays(
        ("training of a chunk", facts),
        lambda: (ended := run(report)).records | {_DIVERGED: ended.diverged_step},
        folder=folder,
    )


def _recorded(program: Program, setting: MixturePair) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a learner's variables; refuses what cannot be trained early."""
    shapes = first_record.eval_shape(program.static, program.numbers, setting)
    return {name: tuple(shape.shape) for name, shape in shapes.items()}
