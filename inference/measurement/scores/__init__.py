"""The old weight from two log-likelihoods a sample."""
