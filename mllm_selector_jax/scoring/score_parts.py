"""Writes, verifies and reads the finished parts of a pass.

Each pass has a folder for its parts. When all passes are done, `score_table.py` joins
the parts into the score table.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax import storage
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.scoring import stored_embeddings


def write_part(folder: Path, number: int, columns: dict[str, Any]) -> None:
  """Write the columns of a part, and then the note that marks it complete.

  The note holds the hashes of the part's files and a hash of its rows, since with
  other options the part of the same number has other rows.

  Args:
    folder: The folder of the pass.
    number: Number of the part, from 0.
    columns: The columns from `sample_columns.make_columns`.
  """
  import pyarrow as pa

  columns = dict(columns)
  rows = _hash_rows(columns["row"])
  embedding = columns.pop("embedding", None)
  turns = pa.array(columns.pop("turn_losses"), pa.list_(pa.float64()))
  arrays = {name: pa.array(values) for name, values in columns.items()}
  files = [folder / f"part-{number:05d}.parquet"]
  artifacts.write_table(files[0], pa.table({**arrays, "turn_losses": turns}))
  if embedding is not None:
    data = io.BytesIO()
    np.save(data, embedding, allow_pickle=False)
    files.append(folder / f"part-{number:05d}.npy")
    artifacts.write_bytes(files[1], data.getvalue())
  hashes = {path.name: storage.hash_file(path) for path in files}
  artifacts.write_json(_note(folder, number), {"rows": rows, "files": hashes})


def is_written(folder: Path, number: int, rows: Int[np.ndarray, " n"]) -> bool:
  """Say whether a part is complete, undamaged, and of exactly these pool rows."""
  try:
    note = json.loads(_note(folder, number).read_text())
    return note["rows"] == _hash_rows(rows) and all(
      storage.hash_file(folder / name) == digest
      for name, digest in note["files"].items()
    )
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return False


def read_parts(folder: Path, count: int) -> Iterator[tuple[Any, np.ndarray | None]]:
  """Yield the columns of each part as a pyarrow table, and its embeddings.

  Embeddings are memory-mapped; they are None if the part has none.
  """
  import pyarrow.parquet as pq

  for number in range(count):
    path = folder / f"part-{number:05d}.parquet"
    stored = path.with_suffix(".npy")
    embedding = None
    if stored.exists():
      embedding = stored_embeddings.map_array(stored)
    yield pq.read_table(path, page_checksum_verification=True), embedding


def _note(folder: Path, number: int) -> Path:
  return folder / f"part-{number:05d}.json"


def _hash_rows(rows: Int[np.ndarray, " n"]) -> str:
  return hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()
