"""The posterior of a checkpoint: its law, the fast path and NUTS."""
