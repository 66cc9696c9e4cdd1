"""The population's value, gradient, flow and descent, without a batch."""
