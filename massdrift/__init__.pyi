from inference import *
from mixture_models import *
