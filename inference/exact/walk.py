"""From record to record: steps along the exact gradient, and what is known of the state at each record."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from inference.engine.programs import Numbers, Program, compiled
from inference.exact.dynamics import RESOLUTION, Records, State, over_settings, value_and_grad
from inference.exact.population import FINE, Place, unmet_of
from mixture_models.mixture.mixture import MixturePair
from mixture_models.objectives.companions import Learner
from mixture_models.types import AnyArray, Scalar


def reported(program: Program, numbers: Numbers, states: State, mixtures: MixturePair) -> Records:
    """Return the records of states that are known, shape (setting, record, ...)."""
    count = jax.tree.leaves(states)[0].shape[1]
    return _walk(program, numbers, states, mixtures, np.ones(count, int), 0.0, False)


def descended(
    program: Program,
    numbers: Numbers,
    states: State,
    mixtures: MixturePair,
    counts: Int[AnyArray, "step"],
    learning_rate: Scalar,
) -> Records:
    """Return the records of a descent: of its start, shape (setting, ...), and after each count of steps."""
    counts = np.append(counts, 1)
    given = jax.tree.map(lambda x: np.repeat(np.asarray(x)[:, None], len(counts), 1), states)
    return _walk(program, numbers, given, mixtures, counts, learning_rate, True)


class _Carry(NamedTuple):
    """What goes from evaluation to evaluation; of those at the last record the value, gradient and error."""

    state: State
    step: Array
    value: Array
    fine: dict[str, Array]
    error: Array


@compiled
def _walk(
    program: Program,
    numbers: Numbers,
    states: State,
    mixtures: MixturePair,
    counts: Int[AnyArray, "record"],
    learning_rate: Scalar,
    descends: Array | bool,
) -> Records:
    """Report a state, and take a count of steps from it, record after record.

    Each record but the first is of the state that the steps led to where one ``descends``, else of one given.
    What is reported and what is stepped along is evaluated at one place of the program: the gradient is most
    of what there is to compile.
    """

    def one(numbers: Numbers, states: State, mixtures: MixturePair) -> Records:
        model, guide, loss, companion, factors = program.parts(numbers)

        def evaluate(i: Array, carry: _Carry) -> _Carry:
            """Evaluate finely at the record, then as coarsely as the solvers do before each step."""
            state, step, value, fine, error = carry
            at_record, first = i == 0, i == 1
            resolution = jnp.where(at_record, FINE, RESOLUTION)
            found, gradient = value_and_grad(program, numbers, state, mixtures, resolution)
            learner = {
                name: x - learning_rate * factors.get(name, 1.0) * gradient[name]
                for name, x in state.learner.items()
            }
            beside = None
            if companion is not None:
                followed = Learner(learner, guide, *mixtures)
                beside = companion.after_step(state.companion, followed, step + 1)
            apart = jnp.max(jnp.stack([jnp.max(jnp.abs(fine[name] - gradient[name])) for name in fine]))
            return _Carry(
                _where(at_record, state, State(learner, beside)),
                jnp.where(at_record, step, step + 1),
                jnp.where(at_record, found, value),
                _where(at_record, gradient, fine),
                jnp.where(first, apart, error),
            )

        def record(
            carry: tuple[State, Array], at: tuple[State, Array]
        ) -> tuple[tuple[State, Array], Records]:
            (reached, step), (given, count) = carry, at
            state = _where(descends, reached, given)
            zero, nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.learner)
            end = lax.fori_loop(0, count + 1, evaluate, _Carry(state, step, zero, nothing, zero))
            unmet = unmet_of(Place(loss, FINE, state.learner, model, guide, mixtures, state.companion))
            return (end.state, end.step), Records(state, end.value, end.error, unmet)

        first: State = jax.tree.map(lambda x: x[0], states)
        _, records = lax.scan(record, (first, jnp.zeros((), int)), (states, counts))
        result: Records = records
        return result

    return over_settings(one, numbers, states, mixtures)


def _where[T](condition: Array | bool, one: T, other: T) -> T:
    """Return one of two pytrees."""
    result: T = jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
    return result
