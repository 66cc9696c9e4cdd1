"""Post-training objectives: what one is, the registry of those that have a name, and their constructors.

An objective is only its parts, so NumPyro alone can train it::

    sft = objectives.sft()
    SVI(sft.model, sft.guide, optax.sgd(0.05), sft.loss).run(key, 500, start, target)
"""

from mixture_models.objectives.constructors import oapl as oapl
from mixture_models.objectives.constructors import reverse_kl as reverse_kl
from mixture_models.objectives.constructors import sdft as sdft
from mixture_models.objectives.constructors import sft as sft
from mixture_models.objectives.constructors import ttt_discover as ttt_discover
from mixture_models.objectives.models import new_data as new_data
from mixture_models.objectives.models import task_data as task_data
from mixture_models.objectives.models import true_target as true_target
from mixture_models.objectives.objective import Objective as Objective
from mixture_models.objectives.registry import by_default as by_default
from mixture_models.objectives.registry import changed as changed
from mixture_models.objectives.registry import parse as parse
from mixture_models.objectives.registry import register as register
from mixture_models.objectives.registry import registry as registry
from mixture_models.objectives.registry import variant as variant
