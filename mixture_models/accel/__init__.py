"""What is made by hand for CPUs, each thing beside its plain JAX form, behind one switch."""
