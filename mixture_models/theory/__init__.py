"""What theory says, as functions: the exact quantities and the bounds of docs/theory.md, which derives each.

Plain arrays in, float64 arrays out, broadcast over all arguments, whatever the caller's JAX settings.
"""

from mixture_models.theory.drift import old_mean_drive
from mixture_models.theory.drift_bounds import old_drift_bound, old_mean_drive_bound
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
    sft_logit_velocity_bound,
    sft_logit_velocity_rare,
    sft_logit_velocity_separated,
    sft_old_weight_rare,
    sft_old_weight_separated,
)
from mixture_models.theory.oapl import oapl_logit_after, oapl_logit_after_exact, oapl_retains
from mixture_models.theory.replay import (
    effective_sample_fraction,
    importance_weight_bound,
    replay_optimum,
    starvation_probability,
)
from mixture_models.theory.resting import Retention
from mixture_models.theory.sdft import (
    SwappedRest,
    sdft_fixed_point,
    sdft_local_rate,
    sdft_retains,
    sdft_swapped_rest,
)
from mixture_models.theory.sequence import (
    nearest_task,
    oapl_task_weights,
    sft_old_weight_of_equal_tasks,
    sft_sequence_weights_separated,
    sft_task_weights_separated,
    starvation_batch_size,
    starvation_replay,
    task_drive_bounds,
    task_starvation_probability,
    ttt_discover_task_weights,
)
from mixture_models.theory.ttt_discover import (
    ttt_discover_critical_kl_weight,
    ttt_discover_retains,
    ttt_discover_stationary_logit,
    ttt_discover_stationary_logit_exact,
)

__all__ = [
    "Bounds",
    "FisherInformation",
    "Retention",
    "SwappedRest",
    "effective_sample_fraction",
    "fisher_information",
    "importance_weight_bound",
    "local_rate",
    "local_rates",
    "misassignment",
    "misassignment_bound",
    "nearest_task",
    "oapl_logit_after",
    "oapl_logit_after_exact",
    "oapl_retains",
    "oapl_task_weights",
    "old_drift_bound",
    "old_mean_drive",
    "old_mean_drive_bound",
    "replay_optimum",
    "sdft_fixed_point",
    "sdft_local_rate",
    "sdft_retains",
    "sdft_swapped_rest",
    "sft_crossover_weight",
    "sft_logit_velocity",
    "sft_logit_velocity_bound",
    "sft_logit_velocity_rare",
    "sft_logit_velocity_separated",
    "sft_old_weight_of_equal_tasks",
    "sft_old_weight_rare",
    "sft_old_weight_separated",
    "sft_sequence_weights_separated",
    "sft_task_weights_separated",
    "starvation_batch_size",
    "starvation_probability",
    "starvation_replay",
    "task_drive_bounds",
    "task_starvation_probability",
    "ttt_discover_critical_kl_weight",
    "ttt_discover_retains",
    "ttt_discover_stationary_logit",
    "ttt_discover_stationary_logit_exact",
    "ttt_discover_task_weights",
    "weight_gradient",
    "weight_gradient_bounds",
]
