"""The run itself: workdir, artifacts, checkpoints, console, processes, bucket."""
