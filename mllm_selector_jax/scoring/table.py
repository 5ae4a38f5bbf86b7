"""The score table, read back: one line a scored row, in pool order."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class ScoreTable:
  """Scores of the rows of a pool.

  Attributes:
    row: pool rows, ascending.
    columns: every numeric column by name.
    folder: of the parts.
  """

  row: Int[np.ndarray, " n"]
  columns: dict[str, np.ndarray]
  folder: Path

  def signal(self, name: str) -> Float[np.ndarray, " n"]:
    """A column by its name.

    Raises:
      InputError: there is none; those that are there are named.
    """
    if name not in self.columns:
      raise InputError(
        f"The score table has no signal {name!r}; it has"
        f" {', '.join(sorted(self.columns))}."
      )
    return self.columns[name]

  def embeddings(self) -> Float[np.ndarray, "n E"]:
    """The embedding of every row, float32."""
    paths = sorted((self.folder / "embeddings").glob("part-*.npy"))
    return np.concatenate([np.load(path, allow_pickle=False) for path in paths])


def read_scores(folder: Path) -> ScoreTable:
  """Reads the parts of a score table; parts ascend in pool rows."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  paths = sorted(folder.glob("part-*.parquet"))
  if not paths:
    raise InputError(f"{folder} holds no score table; run `mllm-selector score` first.")
  table = pa.concat_tables(
    [pq.read_table(path, page_checksum_verification=True) for path in paths]
  )
  numeric = {
    field.name: table[field.name].to_numpy()
    for field in table.schema
    if field.name != "row"
    and not pa.types.is_string(field.type)
    and not pa.types.is_list(field.type)
  }
  return ScoreTable(table["row"].to_numpy(), numeric, folder)
