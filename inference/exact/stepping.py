"""The loop of an ODE's solver, from time to time to report.

Steps, errors, step sizes and interpolation are diffrax'. Its own loop can do far more than is asked for here
(events, dense output, gradients of the solution), and was most of what a flow took to compile: 1.4 s of a
core around an empty field, where this one takes 0.6 s (``benchmarks/bench_exact.py``). Both give the same
states, which a test checks.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import diffrax
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mixture_models.types import Scalar

# Roundings of the end that the last step may fall short of it.
_ROUNDINGS = 100.0


class _Carry(NamedTuple):
    """What goes from step to step: the step to try next leads from ``now`` to ``then``.

    Attributes:
        before: where the last step began.
        state: the solution now.
        dense: the interpolation within the last step.
        solver, controller: what these two remember.
        taken: the steps that were tried.
        succeeded: whether all steps that were kept could be solved.
    """

    before: Float[Array, ""]
    now: Float[Array, ""]
    then: Float[Array, ""]
    state: Any
    dense: dict[str, Any]
    solver: Any
    controller: Any
    taken: Int[Array, ""]
    succeeded: Bool[Array, ""]


def stepped[T](
    terms: diffrax.AbstractTerm[Any, Any],
    solver: diffrax.AbstractSolver[Any],
    controller: diffrax.AbstractStepSizeController[Any, Any],
    state: T,
    begin: Scalar,
    times: Float[Array, "time"],
    first_step: Scalar,
    max_steps: int,
) -> tuple[T, Bool[Array, ""]]:
    """Return the solution of an ODE at times, shape (time, ...), and whether it reached the last of them.

    Args:
        terms: the field.
        solver: how a step is taken.
        controller: which steps are kept, and how long the next one is.
        state: the solution at ``begin``, a pytree of arrays.
        begin: where the solution starts.
        times: where it is reported, increasing, none before ``begin``; it ends at the last.
        first_step: the length of the first step to try.
        max_steps: how many steps may be tried.
    """
    end, begin = times[-1], jnp.asarray(begin, times.dtype)
    almost_end = end - _ROUNDINGS * jnp.finfo(times.dtype).eps * jnp.abs(end)
    order = cast(float, solver.error_order(terms))  # None for stochastic equations alone
    then, controlled = controller.init(terms, begin, end, state, first_step, None, solver.func, order)
    then = jnp.minimum(then, end)
    solved = solver.init(terms, begin, then, state, None)

    @jax.jit  # what is traced to know the shapes is not traced again in the loop
    def attempt(now: Array, then: Array, state: T, solved: Any) -> Any:
        return solver.step(terms, now, then, state, None, solved, False)

    dense = jax.eval_shape(attempt, begin, then, state, solved)[2]

    def step(carry: _Carry) -> _Carry:
        found, error, dense, solved, result = attempt(carry.now, carry.then, carry.state, carry.solver)
        # A step into where the field has no value is too long.
        error = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), jnp.inf, x), error)
        kept, now, then, _, controlled, _ = controller.adapt_step_size(
            carry.now, carry.then, carry.state, found, None, error, order, carry.controller
        )
        # No step ends so close before the end that what is left is rounding.
        last = jnp.where(kept, end, now + 0.5 * (end - now))
        state, solved = jax.tree.map(partial(jnp.where, kept), (found, solved), (carry.state, carry.solver))
        return _Carry(
            carry.now,
            jnp.asarray(now),
            jnp.where(then > almost_end, last, then),
            state,
            dense,
            solved,
            controlled,
            carry.taken + 1,
            carry.succeeded & (~kept | (result == diffrax.RESULTS.successful)),
        )

    def report(carry: _Carry, time: Float[Array, ""]) -> tuple[_Carry, T]:
        carry = lax.while_loop(lambda c: (c.now < time) & (c.taken < max_steps) & c.succeeded, step, carry)
        # The last step was kept: it led to the time or beyond.
        within = solver.interpolation_cls(t0=carry.before, t1=carry.now, **carry.dense).evaluate(time)
        return carry, jax.tree.map(partial(jnp.where, carry.now == time), carry.state, within)

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dense)
    start = _Carry(
        begin, begin, then, state, nothing, solved, controlled, jnp.zeros((), int), jnp.ones((), bool)
    )
    carry, reported = lax.scan(report, start, times)
    return reported, carry.succeeded & (carry.now >= end)
