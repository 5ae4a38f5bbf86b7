"""Keeps the last pass of k-means in a file, so that a command goes on after its end."""

import time
import zipfile
from pathlib import Path

import numpy as np

from mllm_selector_jax import storage
from mllm_selector_jax.selection.cluster_passes import Pass

EVERY = 30.0  # seconds between two writes


class KeptPass:
  """The file of the last pass of a clustering, in a folder of its own."""

  def __init__(self, folder: Path):
    """Names the folder, which is made by the first write."""
    self._path = folder / "pass.npz"
    self._written = time.monotonic()

  def read(self) -> Pass | None:
    """Read the pass; None if there is none, or the file is damaged."""
    try:
      with np.load(self._path, allow_pickle=False) as arrays:
        centres, sums, sizes = arrays["centres"], arrays["sums"], arrays["sizes"]
        iteration, inertia = int(arrays["iteration"]), float(arrays["inertia"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
      return None
    return Pass(iteration, centres, sums, sizes, inertia)

  def write(self, made: Pass) -> None:
    """Write a pass if the last one was written a while ago."""
    if time.monotonic() - self._written < EVERY:
      return
    self._path.parent.mkdir(parents=True, exist_ok=True)
    with storage.writing(self._path) as partial, open(partial, "wb") as file:
      np.savez(file, **made._asdict())
    self._written = time.monotonic()
