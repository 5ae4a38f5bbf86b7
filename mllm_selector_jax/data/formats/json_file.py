"""LLaVA's and LLaMA-Factory's files: a JSON list of records, or JSONL."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mllm_selector_jax.data import records
from mllm_selector_jax.data.formats.base import PoolFile
from mllm_selector_jax.types import Record


class JsonFile(PoolFile):
  """A JSON list, or an object a line; images are files of their own."""

  name = "JSON"

  @classmethod
  def matches(cls, path: str, head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")

  def records(self) -> Iterator[Record]:
    return records.read_records(self.path)

  def read(self, offset: int, length: int) -> Record:
    value = records.record_at(self.path, offset, length)
    return Record(offset, length, value)

  def text(self, offset: int, length: int) -> bytes:
    return records.record_bytes(self.path, offset, length)

  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    before, between, after = (b"[\n", b",\n", b"\n]\n")
    if records.is_lines(self.path):
      before, between, after = b"", b"\n", b"\n"
    with open(out, "wb") as file:
      file.write(before)
      for number, place in enumerate(places):
        file.write((between if number else b"") + self.text(*place))
      file.write(after)
