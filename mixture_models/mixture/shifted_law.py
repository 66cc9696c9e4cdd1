"""A mixture whose log joint densities can be shifted: what each sample does to each mode's gradient."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mixture_models.mixture.law import MixtureLaw, _log_density, _weighted_log_prob
from mixture_models.types import AnyArray


class ShiftedLaw(MixtureLaw):
    """The law of a `MixtureLaw`, with ε_ki added to log(w_k N(y_i; m_k, L_k L_kᵀ)) for a batch y_1..y_n.

    At ε = 0 it is that law, and the derivative of a loss by ε_ki is what sample i contributes to the
    gradient of mode k: Σ_i ∂L/∂ε_ki ∇ log(w_k N(y_i; m_k, L_k L_kᵀ)) is the loss's gradient at a held batch.
    Only densities of that batch can be asked for. Samples are those of the law.

    Args:
        law: a mixture of K modes.
        shifts: ε, shape (K, n).
    """

    pytree_data_fields = ("shifts",)  # type: ignore[assignment]

    def __init__(self, law: MixtureLaw, shifts: AnyArray) -> None:
        self.shifts = jnp.asarray(shifts)
        super().__init__(law.log_weights, law.means, law.scales)

    def log_prob(self, value: Float[Array, "n d"], intermediates: object = None) -> Float[Array, "n"]:
        """Return the shifted log Σ_k w_k N(y_i; m_k, L_k L_kᵀ)."""
        return _log_density(self._log_weights_of_samples(), self.means, self.scales, value)[0]

    def weighted_log_prob(self, value: Float[Array, "n d"], weights: Float[Array, "n"]) -> Float[Array, ""]:
        """Return Σ_i weights_i log q(value_i), shifted, see `MixtureLaw.weighted_log_prob`."""
        value, weights = lax.stop_gradient((value, weights))
        return _weighted_log_prob(self._log_weights_of_samples(), self.means, self.scales, value, weights)

    def _log_weights_of_samples(self) -> Float[Array, "K n"]:
        return self.log_weights[:, None] + self.shifts
