"""Writes the demo pool: LLaVA JSON, images, and the truth about each row."""

import collections
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from mllm_selector_jax.demo.drawing import draw
from mllm_selector_jax.demo.pool_mixture import (
  PlannedRow,
  PoolOptions,
  plan_pool,
  to_prompt,
)
from mllm_selector_jax.demo.scenes import to_json
from mllm_selector_jax.runs import artifacts

_JPEG_QUALITY = 92

Progress = Callable[[int, int], None]  # (rows done, number of rows)


def draw_pool(
  folder: Path, options: PoolOptions, progress: Progress | None = None
) -> dict[str, Any]:
  """Writes `pool.json`, `images/` and `truth.parquet` into a folder.

  With the same options, and the same versions of numpy, Pillow and pyarrow, the files
  have the same bytes.

  Returns:
    Counts: "rows", "images", "text_only", "shared_images", "multi_turn", "wrong",
    "misaligned", "duplicates" and "answerable_without_image"; and "broken", "tasks" and
    "sources", which are counts by name.

  Raises:
    InputError: the options ask for more rows of some kind than there can be.
  """
  folder = Path(folder)
  rows = plan_pool(options)
  drawn = 0
  for done, row in enumerate(rows, 1):
    if row.draws and row.broken != "missing image":
      write_image(
        folder / "images" / row.image,
        draw(row.scene),
        truncated=row.broken == "truncated image",
      )
      drawn += 1
    if progress is not None and (done % 100 == 0 or done == len(rows)):
      progress(done, len(rows))
  artifacts.write_table(folder / "truth.parquet", _make_truth(rows))
  write_records(folder / "pool.json", [_to_record(row) for row in rows])
  return _count(rows, drawn)


def write_image(path: Path, image: Image.Image, truncated: bool = False) -> None:
  """Writes a PNG or JPEG by the path's suffix; a truncated JPEG ends in its pixels."""
  path.parent.mkdir(parents=True, exist_ok=True)
  buffer = io.BytesIO()
  if path.suffix == ".jpg":
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
  else:
    image.save(buffer, "PNG")
  data = buffer.getvalue()
  if truncated:
    scan = data.index(b"\xff\xda")  # the marker before the pixels of a JPEG
    data = data[: scan + (len(data) - scan) // 2]
  path.write_bytes(data)


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
  """Writes LLaVA records as a JSON list, one record per line."""
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = ",\n".join(json.dumps(record) for record in records)
  artifacts.write_text(path, f"[\n{lines}\n]\n")


def _to_record(row: PlannedRow) -> dict[str, Any]:
  conversations = []
  turns = zip(row.questions, row.recorded_answers, strict=True)
  for turn, (question, answer) in enumerate(turns):
    prompt = to_prompt(question, first=turn == 0)
    if turn == 0 and row.image is not None:
      prompt = f"<image>\n{prompt}"
    conversations.append({"from": "human", "value": prompt})
    if row.broken != "no answer turn":
      value = "" if row.broken == "empty answer" else answer
      conversations.append({"from": "gpt", "value": value})
  record: dict[str, Any] = {"id": row.id}
  if row.image is not None:
    record["image"] = row.image
  return {**record, "conversations": conversations}


def _make_truth(rows: list[PlannedRow]):
  """Makes a pyarrow table of the truth about each row, in the order of the pool."""
  import pyarrow as pa

  def scene_of(row: PlannedRow) -> str | None:
    return None if row.scene is None else json.dumps(to_json(row.scene))

  columns = {
    "row": ([row.row for row in rows], pa.int64()),
    "id": ([row.id for row in rows], pa.string()),
    "task": ([row.task for row in rows], pa.string()),
    "wrong": ([row.wrong for row in rows], pa.bool_()),
    "misaligned": ([row.misaligned for row in rows], pa.bool_()),
    "duplicate_of": ([row.duplicate_of for row in rows], pa.int64()),
    "answerable_without_image": (
      [row.answerable_without_image for row in rows],
      pa.bool_(),
    ),
    "broken": ([row.broken for row in rows], pa.string()),
    "answers": ([list(row.answers) for row in rows], pa.list_(pa.string())),
    "scene": ([scene_of(row) for row in rows], pa.string()),
  }
  return pa.table({k: pa.array(values, kind) for k, (values, kind) in columns.items()})


def _count(rows: list[PlannedRow], drawn: int) -> dict[str, Any]:
  sources = [row.image.split("/")[0] if row.image else "text only" for row in rows]
  shown = collections.Counter(row.image for row in rows if row.image)
  return {
    "rows": len(rows),
    "images": drawn,
    "text_only": sources.count("text only"),
    "shared_images": sum(count > 1 for count in shown.values()),
    "multi_turn": sum(len(row.questions) > 1 for row in rows),
    "wrong": sum(row.wrong for row in rows),
    "misaligned": sum(row.misaligned for row in rows),
    "duplicates": sum(row.duplicate_of is not None for row in rows),
    "answerable_without_image": sum(row.answerable_without_image for row in rows),
    "broken": dict(collections.Counter(row.broken for row in rows if row.broken)),
    "tasks": dict(collections.Counter(row.task for row in rows)),
    "sources": dict(collections.Counter(sources)),
  }
