"""What a user runs: one module a question, each with ``run`` and ``plot``."""
