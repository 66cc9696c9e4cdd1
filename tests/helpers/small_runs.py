"""Settings of runs that take seconds, for tests of what surrounds a run."""

# Options of `massdrift compare`.
SMALL = ["--num-steps=12", "--batch-size=8", "--num-replicates=4", "--record-every=4", "--quiet"]

# Settings of both analyses of digits.
SMALL_DIGITS = {
    "width": 8,
    "num_blocks": 1,
    "num_heads": 2,
    "steps": (0, 1, 2),
    "batch_size": 8,
    "num_seeds": 2,
    "num_samples": 60,
    "num_items": 2,
    "num_completions": 2,
}
