"""Reads JSON and JSONL files, as LLaVA, LLaMA-Factory and many others publish them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mllm_selector_jax.data.formats.pool_file import PoolFile
from mllm_selector_jax.data.json_text import json_layouts, parsing, records
from mllm_selector_jax.types import Record

# The text before, between and after the records of a copy, by the kind of its layout.
_BRACKETS = {
  json_layouts.LIST: (b"[\n", b",\n", b"\n]\n"),
  json_layouts.WRAPPED: (b"[\n", b",\n", b"\n]\n"),
  json_layouts.LINES: (b"", b"\n", b"\n"),
  json_layouts.OBJECTS: (b"", b"\n", b"\n"),
  json_layouts.KEYED: (b"{\n", b",\n", b"\n}\n"),
}


class JsonFile(PoolFile):
  """A JSON file; the images of its records are separate files."""

  name = "JSON"
  suffixes = (".json", ".jsonl", ".ndjson")

  @classmethod
  def matches(cls, path: str, head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")

  def records(self) -> Iterator[Record]:
    return records.read_records(self.path)

  def read(self, offset: int, length: int) -> Record:
    return records.record_at(self.path, offset, length)

  def text(self, offset: int, length: int) -> bytes:
    data = records.record_bytes(self.path, offset, length)
    return parsing.make_strict(records.split_key(data)[1])

  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    before, between, after = _BRACKETS[records.find_kind(self.path)]
    with open(out, "wb") as file:
      file.write(before)
      for number, (offset, length) in enumerate(places):
        data = records.record_bytes(self.path, offset, length)
        file.write((between if number else b"") + data)
      file.write(after)
