"""The optimizer, the training step and the loop of `align`, `seed` and `tune`."""
