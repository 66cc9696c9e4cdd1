from inference import *  # noqa: F403
from mixture_models import *  # noqa: F403
