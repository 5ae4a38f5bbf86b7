"""A drawn workdir whose every text is markup or a script."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.stages import synthetic_workdir

HOSTILE = (
  "</script><script>alert(1)</script>",
  "<img src=x onerror=alert(2)>",
  "\"'><svg onload=alert(3)>&amp;<!--<script>",
  "javascript:alert(4)\u2028\u202e\x00\ud800",
)
ROWS = 60


def write_hostile(workdir: Path, stages: str = "select") -> None:
  """Writes the workdir, and the pool beside it; see `synthetic_workdir`."""
  synthetic_workdir.write_workdir(workdir, ROWS, stages)
  pool = workdir.parent / "pool.jsonl"
  table, offset, data = pq.read_table(workdir / "pool.parquet").to_pydict(), 0, b""
  for row in range(ROWS):
    text = HOSTILE[row % 4]
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": text}]
    line = json.dumps({"id": text, "conversations": turns}).encode() + b"\n"
    table["offset"][row], table["length"][row] = offset, len(line) - 1
    table["id"][row] = table["source"][row] = text.replace("\ud800", "")
    table["images"][row] = table["image_hashes"][row] = []
    offset, data = offset + len(line), data + line
  pool.write_bytes(data)
  pq.write_table(pa.table(table), workdir / "pool.parquet")
  path = workdir / "arms/main/selection/selection.parquet"
  chosen = pq.read_table(path).to_pydict()
  chosen["reason"] = [
    HOSTILE[row % 3] + reason for row, reason in enumerate(chosen["reason"])
  ]
  chosen["group_name"] = [
    HOSTILE[group % 3] if group is not None else None for group in chosen["group"]
  ]
  pq.write_table(pa.table(chosen), path)
