"""Signals of each sample, and the engine that computes them for a pool."""
