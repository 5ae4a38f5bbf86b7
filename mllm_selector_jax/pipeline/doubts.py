"""Reads held-out losses, which `heldout_models` makes."""

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import heldout_loss


def read_doubt(run: Run, maker: str, rows: Int[np.ndarray, " N"]) -> heldout_loss.Doubt:
  """Read the held-out losses of some pool rows, NaN where a row has none.

  Args:
    run: The invocation.
    maker: A name of `heldout_models.MAKERS`.
    rows: Pool row numbers.

  Raises:
    InputError: `doubts/<maker>/` has not been made yet.
  """
  import pyarrow.parquet as pq

  artifact = run.workdir.doubts(maker)
  artifact.digest()
  table = pq.read_table(artifact.path / "doubts.parquet")
  index = np.searchsorted(table["row"].to_numpy(), rows)
  loss = table["loss"].to_numpy(zero_copy_only=False)
  right = table["right"].to_numpy(zero_copy_only=False)
  return heldout_loss.Doubt(loss[index], right[index])
