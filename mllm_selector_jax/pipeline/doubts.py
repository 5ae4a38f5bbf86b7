"""Reads the held-out losses that `heldout_models` has made."""

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import heldout_loss


def read_doubt(run: Run, maker: str, rows: Int[np.ndarray, " N"]) -> heldout_loss.Doubt:
  """What is known of these pool rows, NaN where nothing is.

  Raises:
    InputError: it has not been made yet.
  """
  import pyarrow.parquet as pq

  artifact = run.workdir.doubts(maker)
  artifact.digest()
  found = pq.read_table(artifact.path / "doubts.parquet")
  place = np.searchsorted(found["row"].to_numpy(), rows)
  loss = found["loss"].to_numpy(zero_copy_only=False)
  right = found["right"].to_numpy(zero_copy_only=False)
  return heldout_loss.Doubt(loss[place], right[place])
