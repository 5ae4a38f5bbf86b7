"""The run itself: workdir, artifacts, checkpoints, console, processes, and the bucket."""
