"""Operations that a CPU does fast, each beside its plain JAX reference."""
