"""Writes a selection in the forms that trainers read.

Rows are written one by one, in the pool's order, with every field that they have.
What a trainer does not read of them is counted. Image paths of a pool whose images
are files stay what they are (`llava`: inside the image folder) or become absolute (the
others); images that lie inside records or pool files are written to a folder beside.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import id_list
from mllm_selector_jax.data.files.compressed import plain_name
from mllm_selector_jax.data.formats.pool_file import as_json
from mllm_selector_jax.data.pool.kept_rows import MASK, Kept, Row
from mllm_selector_jax.data.pool.prepared_pool import describe
from mllm_selector_jax.data.record_schemas import GPT, HUMAN, SYSTEM, Turn
from mllm_selector_jax.data.record_schemas.grounding import FIELD as OBJECTS
from mllm_selector_jax.types import MARK

DATASET = "mllm_selected"  # the name in LLaMA-Factory's dataset_info.json
_TRL_ROWS = 256  # of a Parquet row group: images are in it
_ROLES = {HUMAN: "user", GPT: "assistant", SYSTEM: "system"}
OTHER = "other_fields"  # TRL's column of a record's further fields


def export_llava(kept: Kept, out: Path) -> None:
  """`selected.json`: LLaVA's list, for its --data_path."""

  def convert(row: Row) -> dict[str, Any]:
    kept.ignore(row, frozenset())
    image = {"image": row.images[0] if len(row.images) == 1 else row.images}
    image = image if row.images else {}
    # LLaVA's trainer fails at a turn that is neither human's nor gpt's.
    turns = [_as_turn(turn) for turn in row.content.turns if turn.speaker != SYSTEM]
    return {**row.others, **_take_system(row), **image, "conversations": turns}

  _write_list(out / "selected.json", map(convert, kept))


def export_llama_factory(kept: Kept, out: Path) -> None:
  """`selected.json`, and the entry of `dataset_info.json` that names it."""
  read = frozenset({SYSTEM})
  rows = (_as_messages(kept, row, read) for row in kept)
  _write_list(out / "selected.json", rows)
  entry = {
    "file_name": "selected.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
      "role_tag": "role",
      "content_tag": "content",
      "user_tag": "user",
      "assistant_tag": "assistant",
      "system_tag": "system",
    },
  }
  (out / "dataset_info.json").write_text(json.dumps({DATASET: entry}, indent=2) + "\n")


def export_ms_swift(kept: Kept, out: Path) -> None:
  """`selected.jsonl`: a line of messages and images each, for --dataset."""
  read = frozenset({SYSTEM, MASK, "objects", "tools", "channel", "rejected_response"})
  with open(out / "selected.jsonl", "wb") as file:
    for row in kept:
      file.write(_dump(_as_messages(kept, row, read)) + b"\n")


def export_trl(kept: Kept, out: Path) -> None:
  """`selected.parquet`: messages of parts, and the images themselves.

  A record's boxes are JSON text in a column of their own, and its further fields in
  another, since they differ in type.
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  part = pa.struct([("type", pa.string()), ("text", pa.string())])
  message = pa.struct(
    [("role", pa.string()), ("content", pa.list_(part)), (MASK, pa.bool_())]
  )
  image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
  text = {"dtype": "string", "_type": "Value"}
  boolean = {"dtype": "bool", "_type": "Value"}
  features = {
    "id": text,
    "messages": [
      {"role": text, "content": [{"type": text, "text": text}], MASK: boolean}
    ],
    "images": [{"_type": "Image"}],
    OBJECTS: text,
    OTHER: text,
  }
  schema = pa.schema(
    [
      ("id", pa.string()),
      ("messages", pa.list_(message)),
      ("images", pa.list_(image)),
      (OBJECTS, pa.string()),
      (OTHER, pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": features}})},
  )
  with pq.ParquetWriter(out / "selected.parquet", schema) as writer:
    for rows in _split((_as_parts(kept, row) for row in kept), _TRL_ROWS):
      writer.write_table(pa.Table.from_pylist(rows, schema))


def export_ids(kept: Kept, out: Path) -> None:
  """`ids.txt`: id, row and hash of each row, see `id_list`."""
  pool, rows = kept.pool, np.array(kept.rows, np.int64)
  columns = zip(pool.id[rows], kept.rows, pool.hash[rows], strict=True)
  id_list.write_lines(out / "ids.txt", itertools.starmap(id_list.Line, columns))


def export_verbatim(kept: Kept, out: Path) -> None:
  """The kept records as they stand, a file for each file of the pool."""
  places: dict[str, list[tuple[int, int]]] = {}
  for row in kept.rows:
    place = int(kept.pool.offset[row]), int(kept.pool.length[row])
    places.setdefault(kept.pool.file[row], []).append(place)
  names = _name_files(list(places))
  for file, found in places.items():
    target = out / names[file]
    target.parent.mkdir(exist_ok=True)
    formats.open_file(file).copy(found, target)
  _finish_data_sets(places, names, out)


EXPORTS: dict[str, Callable[[Kept, Path], None]] = {
  "verbatim": export_verbatim,
  "llava": export_llava,
  "llama_factory": export_llama_factory,
  "ms_swift": export_ms_swift,
  "trl": export_trl,
  "ids": export_ids,
}


def _name_files(files: list[str]) -> dict[str, str]:
  """Where each file's rows go: its own name; TFDS shards are numbered anew."""
  folders: dict[str, list[str]] = {}
  for file in files:
    folders.setdefault(os.path.dirname(file), []).append(file)
  bases = [os.path.basename(file) for file in files]
  alone = len(folders) == 1 or len(set(bases)) == len(bases)
  names = {}
  for number, (folder, inside) in enumerate(folders.items()):
    place = "" if alone else f"{number}-{os.path.basename(folder) or 'pool'}/"
    shards = [file for file in inside if _is_shard(file)]
    if shards and len(folders) > 1:
      place = f"{number}-{os.path.basename(folder)}/"
    for file in inside:
      name = plain_name(os.path.basename(file))
      if file in shards:
        name = f"selected-train.array_record-{shards.index(file):05d}"
        name += f"-of-{len(shards):05d}"
      names[file] = f"{place}{name}"
  return names


def _is_shard(file: str) -> bool:
  beside = os.path.join(os.path.dirname(file), "features.json")
  return ".array_record" in os.path.basename(file) and os.path.exists(beside)


def _finish_data_sets(places, names: dict[str, str], out: Path) -> None:
  """Writes what describes each TFDS data set beside its files."""
  sets: dict[Path, dict[str, int]] = {}
  for file, found in places.items():
    if _is_shard(file):
      folder = (out / names[file]).parent
      sets.setdefault(folder, {})[os.path.basename(names[file])] = len(found)
      features = Path(file).with_name("features.json").read_bytes()
      (folder / "features.json").write_bytes(features)
  for folder, lengths in sets.items():
    describe(folder, "selected", lengths)


def _take_system(row: Row) -> dict[str, str]:
  """The row's own system text as a field, where it has one."""
  texts = [turn.text for turn in row.content.turns if turn.speaker == SYSTEM]
  return {"system": texts[0]} if texts else {}


def _as_turn(turn: Turn) -> dict[str, Any]:
  """A turn of LLaVA's form, with the fields that the record's turn had."""
  return {"from": turn.speaker, "value": turn.text, **_list_extra(turn)}


def _list_extra(turn: Turn) -> dict[str, Any]:
  masked = {} if turn.learned or turn.speaker != GPT else {MASK: False}
  return as_json(dict(turn.extra)) | masked


def _as_messages(kept: Kept, row: Row, read: frozenset[str]) -> dict[str, Any]:
  kept.ignore(row, read)
  paths = [os.path.join(kept.images, image) for image in row.images]
  messages = [
    {"role": _ROLES[turn.speaker], "content": turn.text, **_list_extra(turn)}
    for turn in row.content.turns
  ]
  return {**row.others, "messages": messages, "images": paths}


def _as_parts(kept: Kept, row: Row) -> dict[str, Any]:
  kept.ignore(row, frozenset({SYSTEM}))
  messages = []
  for turn in row.content.turns:
    message = {"role": _ROLES[turn.speaker], "content": _split_marks(turn)}
    messages.append(message | {MASK: _list_extra(turn).get(MASK)})
  images = [
    {"bytes": data, "path": os.path.basename(image)}
    for data, image in zip(row.data, row.images, strict=True)
  ]
  others = row.others
  name = others.pop("id", None)
  # In a column of their own, so that the row is the same when it is read again.
  objects = [others.pop(field) for field in row.objects]
  return {
    "id": None if name is None else _as_text(name),
    "messages": messages,
    "images": images,
    OBJECTS: _as_text(objects[0]) if objects else None,
    OTHER: _dump(others).decode() if others else None,
  }


def _as_text(value: Any) -> str:
  """A text as it is, and any other value as JSON text."""
  return value if isinstance(value, str) else _dump(value).decode()


def _split_marks(turn: Turn) -> list[dict[str, str | None]]:
  """A turn's text as parts; the line that a mark stands on needs no line break."""
  marked = turn.speaker == HUMAN
  texts = turn.text.split(MARK) if marked else [turn.text]
  parts: list[dict[str, str | None]] = []
  for number, text in enumerate(texts):
    if number:
      parts.append({"type": "image", "text": None})
      text = text.removeprefix("\n")
    if number < len(texts) - 1:
      text = text.removesuffix("\n")
    if text:
      parts.append({"type": "text", "text": text})
  return parts or [{"type": "text", "text": ""}]


def _write_list(path: Path, values: Iterable[dict[str, Any]]) -> None:
  with open(path, "wb") as file:
    file.write(b"[\n")
    for number, value in enumerate(values):
      file.write((b",\n" if number else b"") + _dump(value))
    file.write(b"\n]\n")


def _dump(value: Any) -> bytes:
  return json.dumps(as_json(value), ensure_ascii=False, default=str).encode()


def _split(values: Iterable[Any], most: int) -> Iterator[list[Any]]:
  some = []
  for value in values:
    some.append(value)
    if len(some) == most:
      yield some
      some = []
  if some:
    yield some
