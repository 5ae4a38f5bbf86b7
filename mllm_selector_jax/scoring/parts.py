"""Finished parts of a pass on disk: written whole, found again, found damaged.

A pass leaves its parts in a folder of its own until every pass is done and they
are joined into the score table (table.py).
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import artifacts


def write_part(folder: Path, number: int, columns: dict[str, Any]) -> None:
  """Writes a part's columns; its note, with the hashes of its files, comes last."""
  import pyarrow as pa

  columns = dict(columns)
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
  hashes = {path.name: artifacts.hash_file(path) for path in files}
  artifacts.write_json(_note(folder, number), hashes)


def is_written(folder: Path, number: int) -> bool:
  """Whether a part is there, whole and undamaged."""
  try:
    wanted = json.loads(_note(folder, number).read_text())
    return all(artifacts.hash_file(folder / n) == h for n, h in wanted.items())
  except (OSError, ValueError, AttributeError):
    return False


def read_parts(folder: Path, count: int) -> Iterator[tuple[Any, np.ndarray | None]]:
  """Each part's columns, as a pyarrow table, and embeddings, kept on disk."""
  import pyarrow.parquet as pq

  for number in range(count):
    path = folder / f"part-{number:05d}.parquet"
    stored = path.with_suffix(".npy")
    embedding = None
    if stored.exists():
      embedding = np.load(stored, mmap_mode="r", allow_pickle=False)
    yield pq.read_table(path, page_checksum_verification=True), embedding


def _note(folder: Path, number: int) -> Path:
  return folder / f"part-{number:05d}.json"
