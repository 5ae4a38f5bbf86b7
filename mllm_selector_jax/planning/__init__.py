"""Estimates the memory, time and disk of the long stages before they start."""
