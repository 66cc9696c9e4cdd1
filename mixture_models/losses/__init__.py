"""The losses that training minimises, as NumPyro ELBOs: one file a divergence."""
