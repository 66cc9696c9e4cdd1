"""What theory says, as functions: the exact quantities and the bounds of docs/theory.md, which derives each.

Plain arrays in, float64 arrays out, broadcast over all arguments, whatever the caller's JAX settings.
"""

from mixture_models.theory.drift import old_mean_drive as old_mean_drive
from mixture_models.theory.drift_bounds import old_drift_bound as old_drift_bound
from mixture_models.theory.drift_bounds import old_mean_drive_bound as old_mean_drive_bound
from mixture_models.theory.geometry import Bounds as Bounds
from mixture_models.theory.geometry import FisherInformation as FisherInformation
from mixture_models.theory.geometry import fisher_information as fisher_information
from mixture_models.theory.geometry import local_rate as local_rate
from mixture_models.theory.geometry import local_rates as local_rates
from mixture_models.theory.geometry import weight_gradient as weight_gradient
from mixture_models.theory.geometry import weight_gradient_bounds as weight_gradient_bounds
from mixture_models.theory.mass import misassignment as misassignment
from mixture_models.theory.mass import misassignment_bound as misassignment_bound
from mixture_models.theory.mass import sft_crossover_weight as sft_crossover_weight
from mixture_models.theory.mass import sft_logit_velocity as sft_logit_velocity
from mixture_models.theory.mass import sft_logit_velocity_bound as sft_logit_velocity_bound
from mixture_models.theory.mass import sft_logit_velocity_rare as sft_logit_velocity_rare
from mixture_models.theory.mass import sft_logit_velocity_separated as sft_logit_velocity_separated
from mixture_models.theory.mass import sft_old_weight_rare as sft_old_weight_rare
from mixture_models.theory.mass import sft_old_weight_separated as sft_old_weight_separated
from mixture_models.theory.oapl import oapl_logit_after as oapl_logit_after
from mixture_models.theory.oapl import oapl_logit_after_exact as oapl_logit_after_exact
from mixture_models.theory.oapl import oapl_retains as oapl_retains
from mixture_models.theory.replay import effective_sample_fraction as effective_sample_fraction
from mixture_models.theory.replay import importance_weight_bound as importance_weight_bound
from mixture_models.theory.replay import replay_optimum as replay_optimum
from mixture_models.theory.replay import starvation_probability as starvation_probability
from mixture_models.theory.resting import Retention as Retention
from mixture_models.theory.sdft import SwappedRest as SwappedRest
from mixture_models.theory.sdft import sdft_fixed_point as sdft_fixed_point
from mixture_models.theory.sdft import sdft_local_rate as sdft_local_rate
from mixture_models.theory.sdft import sdft_retains as sdft_retains
from mixture_models.theory.sdft import sdft_swapped_rest as sdft_swapped_rest
from mixture_models.theory.sequence import nearest_task as nearest_task
from mixture_models.theory.sequence import oapl_task_weights as oapl_task_weights
from mixture_models.theory.sequence import sft_old_weight_of_equal_tasks as sft_old_weight_of_equal_tasks
from mixture_models.theory.sequence import sft_sequence_weights_separated as sft_sequence_weights_separated
from mixture_models.theory.sequence import sft_task_weights_separated as sft_task_weights_separated
from mixture_models.theory.sequence import starvation_batch_size as starvation_batch_size
from mixture_models.theory.sequence import starvation_replay as starvation_replay
from mixture_models.theory.sequence import task_drive_bounds as task_drive_bounds
from mixture_models.theory.sequence import task_starvation_probability as task_starvation_probability
from mixture_models.theory.sequence import ttt_discover_task_weights as ttt_discover_task_weights
from mixture_models.theory.ttt_discover import (
    ttt_discover_critical_kl_weight as ttt_discover_critical_kl_weight,
)
from mixture_models.theory.ttt_discover import ttt_discover_retains as ttt_discover_retains
from mixture_models.theory.ttt_discover import ttt_discover_stationary_logit as ttt_discover_stationary_logit
from mixture_models.theory.ttt_discover import (
    ttt_discover_stationary_logit_exact as ttt_discover_stationary_logit_exact,
)
