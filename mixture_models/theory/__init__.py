"""What theory says, as functions: the exact quantities and the bounds of docs/theory.md.

Plain arrays in, float64 arrays out, broadcast over all arguments, whatever the caller's JAX settings.
"""

from mixture_models.theory.drift import old_mean_drive, old_mean_drive_bound
from mixture_models.theory.geometry import (
    Bounds,
    FisherInformation,
    fisher_information,
    local_rate,
    local_rates,
    weight_gradient,
    weight_gradient_bounds,
)
from mixture_models.theory.mass import (
    misassignment,
    misassignment_bound,
    sft_crossover_weight,
    sft_logit_velocity,
    sft_logit_velocity_rare,
    sft_logit_velocity_separated,
    sft_old_weight_rare,
    sft_old_weight_separated,
)
from mixture_models.theory.replay import (
    effective_sample_fraction,
    importance_weight_bound,
    replay_optimum,
    starvation_probability,
)

__all__ = [
    "Bounds",
    "FisherInformation",
    "effective_sample_fraction",
    "fisher_information",
    "importance_weight_bound",
    "local_rate",
    "local_rates",
    "misassignment",
    "misassignment_bound",
    "old_mean_drive",
    "old_mean_drive_bound",
    "replay_optimum",
    "sft_crossover_weight",
    "sft_logit_velocity",
    "sft_logit_velocity_rare",
    "sft_logit_velocity_separated",
    "sft_old_weight_rare",
    "sft_old_weight_separated",
    "starvation_probability",
    "weight_gradient",
    "weight_gradient_bounds",
]
