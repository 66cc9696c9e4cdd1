"""The compiled programs of a sweep: what starts the trainings of a call, and what goes on with them."""

from threading import Lock
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled
from jaxtyping import Array
from numpyro.infer.svi import SVIState

from inference.engine.programs import Numbers, Program, traced_alone
from inference.training.loop import State, advance, arithmetic, initial_state, report_of
from mixture_models.accel.compiler import compiler_options
from mixture_models.mixture.mixture import Mixture, MixturePair


class Call(NamedTuple):
    """What a compiled program is made for beside the shapes of its arguments."""

    num_places: int
    #: Replicates that are trained at once, the other ones after them.
    together: int
    #: Whether settings share their random numbers.
    common: bool


class Beginning(NamedTuple):
    """Where a stage of sequences begins, leading axes replicates and settings, and its number."""

    number: np.ndarray
    diverged_step: np.ndarray
    learners: Mixture


class Arguments(NamedTuple):
    """What a compiled program takes, but for where it stands: leading axis settings where they differ."""

    numbers: Numbers
    setting: MixturePair
    rate: np.ndarray
    words: np.ndarray
    replicates: np.ndarray
    beginning: Beginning | None


class Records[Values](NamedTuple):
    """What a call records, shape (replicate, setting, place, ...).

    Attributes:
        reported: of the learner.
        params: where a next stage begins, of sequences alone.
    """

    reported: dict[str, Values]
    params: dict[str, Values]


def placed(arguments: Arguments, common: bool) -> Arguments:
    """Spread the settings over this host's devices, where there are several."""
    if jax.local_device_count() == 1:
        return arguments
    spread, whole, each = _on_devices("settings"), _on_devices(), _on_devices(None, "settings")
    beginning = None if arguments.beginning is None else Beginning(whole, each, each)  # type: ignore[arg-type]
    put = (spread, spread, spread, whole if common else spread, whole, beginning)
    return Arguments(*(jax.device_put(a, where) for a, where in zip(arguments, put, strict=True)))


def _on_devices(*axes: str | None) -> NamedSharding:
    """Return how an array lies on the devices of this host, by what its leading axes are."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), ("settings",)), PartitionSpec(*axes))


def _outputs(common: bool) -> tuple[State, NamedSharding]:
    """Return how a state and its records lie on several devices; what one call gives the next one takes."""
    spread, whole = _on_devices(None, "settings"), _on_devices()
    svi = SVIState(spread, None, whole if common else spread)
    return State._make((svi, spread, whole, spread)), spread


_COMPILED: dict[tuple[object, ...], tuple[Compiled, Compiled]] = {}
_LOCKS: dict[tuple[object, ...], Lock] = {}
_GUARD = Lock()


def executables(static: Program, arguments: Arguments, call: Call) -> tuple[Compiled, Compiled]:
    """Return the programs that start trainings and go on with them, for arguments of these shapes."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (static, call, structure, tuple((np.shape(leaf), str(leaf.dtype)) for leaf in leaves))
    with _GUARD:
        lock = _LOCKS.setdefault(key, Lock())
    with lock:
        if key not in _COMPILED:
            with arithmetic():
                _COMPILED[key] = _compile(static, placed(arguments, call.common), call)
    return _COMPILED[key]


def _compile(static: Program, arguments: Arguments, call: Call) -> tuple[Compiled, Compiled]:
    """Compile, for a block, what starts trainings and what goes on with them."""
    over_settings = _axes(key=None if call.common else 0)
    over_replicates = _axes(key=0)

    @traced_alone
    def start(
        numbers: Numbers,
        setting: MixturePair,
        rate: Array,
        words: Array,
        replicates: Array,
        beginning: Beginning | None,
    ) -> State:
        def one(numbers: Numbers, setting: MixturePair, rate: Array, words: Array, replicate: Array) -> State:
            key = jax.random.wrap_key_data(words, impl="threefry2x32")
            key = jax.random.fold_in(jax.random.fold_in(key, 0), replicate)
            # As `train_sequence` has it.
            key = key if beginning is None else jax.random.fold_in(key, beginning.number)
            return initial_state(static, numbers, key, setting, rate)

        settings = jax.vmap(one, (0, 0, 0, None if call.common else 0, None), over_settings)
        begins, target = setting if beginning is None else (beginning.learners, setting[1])
        along = None if beginning is None else (0, None)
        states = jax.vmap(settings, (None, along, None, None, 0), over_replicates)(
            numbers, (begins, target), rate, words, replicates
        )
        if beginning is None:
            return states
        return states._replace(diverged_step=jnp.asarray(beginning.diverged_step))

    @traced_alone
    def go(
        numbers: Numbers,
        state: State,
        counts: Array,
        recorded: Array,
        num_steps: Array,
        setting: MixturePair,
        rate: Array,
        learners: Mixture | None,
    ) -> tuple[State, Records[Array]]:
        def one(
            numbers: Numbers, state: State, setting: MixturePair, rate: Array
        ) -> tuple[State, Records[Array]]:
            state, taken = advance(static, numbers, state, counts, num_steps, setting, rate)
            _, guide, *_ = static.parts(numbers)
            diverged_step, records = report_of(guide, state.diverged_step, taken, recorded, setting)
            params = {} if learners is None else taken.params
            return state._replace(diverged_step=diverged_step), Records(records, params)

        def replicate(state: State, begins: Mixture | None) -> tuple[State, Records[Array]]:
            settings = jax.vmap(one, (0, over_settings, 0, 0), (over_settings, 0))
            return settings(numbers, state, setting if begins is None else (begins, setting[1]), rate)

        ended, records = lax.map(
            lambda each: replicate(each[0]._replace(step=state.step), each[1]),
            # The step is that of all.
            (State._make((state.svi, state.companion, None, state.diverged_step)), learners),
            batch_size=call.together,
        )
        return ended._replace(step=ended.step[0]), records

    numbers, setting, rate = arguments[:3]
    learners = None if arguments.beginning is None else arguments.beginning.learners
    counts, recorded = np.zeros(call.num_places, np.int64), np.zeros(call.num_places, bool)
    options = compiler_options()
    several = jax.local_device_count() > 1
    state_on, records_on = _outputs(call.common) if several else (None, None)
    started = jax.jit(start, out_shardings=state_on, compiler_options=options).lower(*arguments).compile()
    state = started(*arguments) if several else jax.eval_shape(start, *arguments)
    out = (state_on, records_on) if several else None
    going = jax.jit(go, out_shardings=out, compiler_options=options).lower(
        numbers, state, counts, recorded, np.int64(1), setting, rate, learners
    )
    return started, going.compile()


def _axes(key: int | None) -> State:
    """Return the axes of a state for ``vmap``: the step is that of all, the key may be."""
    return State._make((SVIState(0, None, key), 0, None, 0))
