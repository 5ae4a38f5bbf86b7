"""Optimizer, train step and loop: seed, tune and stage-1 alignment."""
