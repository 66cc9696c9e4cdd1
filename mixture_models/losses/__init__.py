"""The losses that training minimises, as NumPyro ELBOs: one file a divergence."""

# Named by `mixture_models`, which takes it from here.
from mixture_models.losses import precision as precision
