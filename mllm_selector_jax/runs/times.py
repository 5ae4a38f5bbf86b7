"""Records how long artifacts took, outside of them, so that they are reproducible."""

import json
from pathlib import Path

from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run

NAME = "times.json"


def keep_times(run: Run, folder: Path) -> bool:
  """Moves the times of artifacts made since the last call to the folder's `times.json`.

  Returns:
    Whether anything was made.
  """
  made = dict(run.seconds)
  run.seconds.clear()
  if made and peers.is_first_process():
    times = read_times(folder)
    for name, seconds in made.items():
      if name.endswith(".partial"):
        times[name] = times.get(name, 0.0) + seconds
      else:
        times[name] = times.pop(f"{name}.partial", 0.0) + seconds
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(folder / NAME, times)
  return bool(made)


def read_times(folder: Path) -> dict[str, float]:
  """Reads the seconds that artifacts took, by name."""
  path = folder / NAME
  return json.loads(path.read_text()) if path.exists() else {}
