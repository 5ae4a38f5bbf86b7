"""Manages a run: its workdir, artifacts, checkpoints, console, processes and bucket."""
