"""Post-training objectives: what one is, the registry of those that have a name, and their constructors.

An objective is only its parts, so NumPyro alone can train it::

    sft = objectives.sft()
    SVI(sft.model, sft.guide, optax.sgd(0.05), sft.loss).run(key, 500, start, target)
"""

from mixture_models.objectives.constructors import oapl, reverse_kl, sdft, sft, ttt_discover
from mixture_models.objectives.models import new_data, task_data, true_target
from mixture_models.objectives.objective import Objective
from mixture_models.objectives.registry import by_default, changed, parse, register, registry, variant

__all__ = [
    "Objective",
    "by_default",
    "changed",
    "new_data",
    "oapl",
    "parse",
    "register",
    "registry",
    "reverse_kl",
    "sdft",
    "sft",
    "task_data",
    "true_target",
    "ttt_discover",
    "variant",
]
