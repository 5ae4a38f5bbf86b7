"""Functions that make the artifacts of a run; only stale artifacts are made."""
