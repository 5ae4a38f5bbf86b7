"""Writes a selection in the forms that trainers read.

Rows are written one by one, in the pool's order. Image paths of a pool whose images
are files stay what they are (`llava`: inside the image folder) or become absolute
(the others); images that lie inside pool files are written to a folder beside.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mllm_selector_jax.data import formats, forms
from mllm_selector_jax.data.packed import plain_name
from mllm_selector_jax.data.pictures import read_picture
from mllm_selector_jax.data.prepare import describe
from mllm_selector_jax.data.rounds import read_rounds
from mllm_selector_jax.data.table import PoolTable
from mllm_selector_jax.types import InputError, RowError

DATASET = "mllm_selected"  # the name in LLaMA-Factory's dataset_info.json
_TRL_ROWS = 256  # of a Parquet row group: images are in it
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"GI": ".gif"}
_SUFFIXES |= {b"BM": ".bmp", b"II": ".tif", b"MM": ".tif"}
_OWN = ("conversations", "messages", "texts", "image", "images")


class Row(NamedTuple):
  """One kept row.

  Attributes:
    row: its number in the pool.
    id: its own.
    value: the record.
    conversations: in LLaVA's form.
    image: the image's path, None for text alone.
    data: the image file's bytes.
  """

  row: int
  id: str
  value: dict[str, Any]
  conversations: list[dict[str, str]]
  image: str | None
  data: bytes | None


class Kept:
  """The kept rows of a pool, and where their images are for a trainer.

  Args:
    pool: the checked pool.
    rows: numbers of the kept rows, ascending.
    folder: of the pool's images; None if there is none.
    written: folder for the images that lie inside pool files.
    final: where that folder will be in the end.
  """

  def __init__(
    self,
    pool: PoolTable,
    rows: list[int],
    folder: str | None,
    written: Path,
    final: Path,
  ):
    self.pool = pool
    self.rows = rows
    self._folder = folder
    self._written = written
    # A trainer takes one image folder: either the pool's, or all are written.
    files = dict.fromkeys(pool.file[row] for row in rows)
    inside = any(formats.find_format(file) is not formats.JsonFile for file in files)
    self._inside = inside
    self.images = final if inside else Path(os.path.abspath(folder or "."))

  def __iter__(self) -> Iterator[Row]:
    for row in self.rows:
      yield self._read(row)

  def _read(self, row: int) -> Row:
    record = self.pool.record(row)
    try:
      content = forms.read_content(record)
      data, name = None, self.pool.image[row]
      if name is not None:
        data = read_picture(content.pictures[0], self._folder)
    except (RowError, IndexError) as error:
      raise InputError(
        f"Row {row:,} (id {self.pool.id[row]}) changed since the pool was checked:"
        f" {error}. Put the old file back, or check the pool again with --force."
      ) from error
    if name is not None and self._inside:
      name = self._write(self.pool.image_hash[row], data)
    return Row(row, self.pool.id[row], record.value, content.conversations, name, data)

  def _write(self, digest: str, data: bytes) -> str:
    name = f"{digest[:2]}/{digest}{_SUFFIXES.get(data[:2], '.img')}"
    path = self._written / name
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(data)
    return name


def export_llava(kept: Kept, out: Path) -> None:
  """`selected.json`: LLaVA's list, for its --data_path."""

  def convert(row: Row) -> dict[str, Any]:
    others = {key: value for key, value in row.value.items() if key not in _OWN}
    image = {} if row.image is None else {"image": row.image}
    return {**others, "id": row.id, **image, "conversations": row.conversations}

  _write_list(out / "selected.json", map(convert, kept))


def export_llama_factory(kept: Kept, out: Path) -> None:
  """`selected.json`, and the entry of `dataset_info.json` that names it."""
  _write_list(out / "selected.json", (_as_messages(row, kept.images) for row in kept))
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
  with open(out / "selected.jsonl", "wb") as file:
    for row in kept:
      file.write(_dump(_as_messages(row, kept.images)) + b"\n")


def export_trl(kept: Kept, out: Path) -> None:
  """`selected.parquet`: messages of parts, and the images themselves."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  part = pa.struct([("type", pa.string()), ("text", pa.string())])
  message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
  image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
  text = {"dtype": "string", "_type": "Value"}
  features = {
    "id": text,
    "messages": [{"role": text, "content": [{"type": text, "text": text}]}],
    "images": [{"_type": "Image"}],
  }
  schema = pa.schema(
    [
      ("id", pa.string()),
      ("messages", pa.list_(message)),
      ("images", pa.list_(image)),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": features}})},
  )
  with pq.ParquetWriter(out / "selected.parquet", schema) as writer:
    for rows in _split(map(_as_parts, kept), _TRL_ROWS):
      writer.write_table(pa.Table.from_pylist(rows, schema))


def export_ids(kept: Kept, out: Path) -> None:
  """`ids.txt`: an id a line."""
  ids = [kept.pool.id[row] for row in kept.rows]
  for name in ids:
    if len(name.splitlines()) > 1 or name.endswith("\n"):
      raise InputError(
        f"The id {name[:80]!r} holds a line break, so it fits no list of lines;"
        " take the format weights."
      )
  (out / "ids.txt").write_bytes("".join(f"{name}\n" for name in ids).encode())


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


def _as_messages(row: Row, folder: Path) -> dict[str, Any]:
  paths = [] if row.image is None else [os.path.join(folder, row.image)]
  return {"id": row.id, "messages": list(_list_messages(row)), "images": paths}


def _as_parts(row: Row) -> dict[str, Any]:
  messages = []
  for message in _list_messages(row):
    before, mark, after = message["content"].partition(forms.MARK)
    texts = [before.rstrip("\n") if mark else before, after.removeprefix("\n")]
    parts = [{"type": "text", "text": text} for text in texts]
    if mark:
      parts.insert(1, {"type": "image", "text": None})
    parts = [part for part in parts if part["text"] != ""] or parts[:1]
    messages.append({"role": message["role"], "content": parts})
  found = [] if row.image is None else [{"bytes": row.data, "path": row.image}]
  return {"id": row.id, "messages": messages, "images": found}


def _list_messages(row: Row) -> Iterator[dict[str, str]]:
  first = row.conversations[0]
  if first.get("from") == "system" and isinstance(first.get("value"), str):
    yield {"role": "system", "content": first["value"]}
  for question, answer in read_rounds(row.conversations):
    yield {"role": "user", "content": question}
    yield {"role": "assistant", "content": answer}


def _write_list(path: Path, values: Iterable[dict[str, Any]]) -> None:
  with open(path, "wb") as file:
    file.write(b"[\n")
    for number, value in enumerate(values):
      file.write((b",\n" if number else b"") + _dump(value))
    file.write(b"\n]\n")


def _dump(value: dict[str, Any]) -> bytes:
  return json.dumps(value, ensure_ascii=False, default=str).encode()


def _split(values: Iterable[Any], most: int) -> Iterator[list[Any]]:
  some = []
  for value in values:
    some.append(value)
    if len(some) == most:
      yield some
      some = []
  if some:
    yield some
