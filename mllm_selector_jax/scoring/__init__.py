"""Signals of each sample, and the engine that computes them over a pool."""
