"""Reads WebDataset tars, in which a sample is `<key>.json` beside `<key>.jpg`."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from tarfile import TarInfo

from mllm_selector_jax.data.files import compressed
from mllm_selector_jax.data.formats.pool_file import PoolFile, changed, explain
from mllm_selector_jax.data.formats.tar_members import (
  BLOCK,
  group_members,
  is_header,
  list_members,
  name_sample,
  read_member,
  split_name,
)
from mllm_selector_jax.data.images import image_folders
from mllm_selector_jax.data.json_text import parsing, records
from mllm_selector_jax.types import InputError, Picture, Record

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
_MOST_ALONE = 100_000  # number of keys of images without a record that are remembered
# Fields of the metadata that img2dataset writes beside each image.
_DOWNLOADED = {"url", "key", "status"}
_TALK = {"conversations", "messages", "texts"}


class TarFile(PoolFile):
  """A WebDataset tar; a sample consists of consecutive members with the same key.

  The key is the part of a member's name before its first dot. If several records have
  names with more dots (`a.b.1.json`), it is the part before the last dot.

  The record is the member `<key>.json`, or else the only member whose name ends in
  `.json` (`<key>.conversations.json`). It may also be a bare list of turns.

  Members with the suffix of an image are the images, in order. If one of them is a
  plain `<key>.jpg`, then of the others only those with a number (`<key>.1.jpg`) are
  taken, and masks (`<key>.mask.png`) are not. Other members, and everything that is
  not a complete regular file, are skipped.
  """

  name = "WebDataset tar"
  suffixes = (".tar",)

  @classmethod
  def matches(cls, path: str, head: bytes) -> bool:
    return is_header(head)

  def records(self) -> Iterator[Record]:
    members: list[TarInfo] = []
    has_records = False
    table = ""  # name of a member that is a file of many records
    alone: set[str] = set()  # keys of images without a record
    try:
      with compressed.open_plain(self.path) as file:
        for members in group_members(list_members(self.path, file)):
          record = _read_sample(file, members)
          key = name_sample(members)
          if record.value is not None:
            has_records = True
            if not record.pictures and key in alone:
              detail = f"{key}: its image is elsewhere in the tar; {_TOGETHER}"
              record = record._replace(value=None, reason="malformed", detail=detail)
          elif len(alone) < _MOST_ALONE and not any(map(_is_text, members)):
            alone.add(key)
          if split_name(members[0].name)[1] in ("jsonl", "ndjson", "csv", "parquet"):
            table = table or members[0].name
          yield record
    except OSError as error:
      raise explain(self.path, error) from error
    if table and not has_records:
      raise InputError(
        f"{self.path}: a tar of images and of {table}, whose rows name them; expected"
        " <key>.json beside each image. Unpack it, and give that file as pool.data and"
        " the folder as pool.images."
      )
    if not members:
      raise InputError(
        f"{self.path}: the tar holds no sample; expected <key>.json beside its image."
      )

  def read(self, offset: int, length: int) -> Record:
    sample = io.BytesIO(records.record_bytes(self.path, offset, length))
    try:
      (members,) = group_members(list_members(self.path, sample))
    except (InputError, ValueError) as error:
      raise changed(self.path, f"no sample at byte {offset:,}") from error
    return _read_sample(sample, members)._replace(offset=offset, length=length)

  def image_names(self) -> Iterator[str]:
    return iter(())  # the images of a sample are members of the tar

  def text(self, offset: int, length: int) -> bytes:
    sample = io.BytesIO(records.record_bytes(self.path, offset, length))
    texts = _find_texts(list(list_members(self.path, sample)))
    if not texts:
      raise changed(self.path, f"no sample at byte {offset:,}")
    return parsing.make_strict(read_member(sample, texts[0]).strip(b" \t\r\n"))

  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    with open(out, "wb") as file:
      for offset, length in places:
        file.write(records.record_bytes(self.path, offset, length))
      file.write(bytes(2 * BLOCK))


_TOGETHER = (
  "the members of a sample must follow one another, as in a tar made with"
  " `tar --sort=name`"
)


def _is_text(member: TarInfo) -> bool:
  return split_name(member.name)[1].rpartition(".")[2] == "json"


def _find_texts(members: list[TarInfo]) -> list[TarInfo]:
  """Returns the members that may be the record; a valid sample has one."""
  texts = [member for member in members if _is_text(member)]
  plain = [member for member in texts if split_name(member.name)[1] == "json"]
  return plain or texts


def _find_images(members: list[TarInfo]) -> list[TarInfo]:
  """Returns the members that are images of the sample; see `TarFile`."""
  images = []  # each with the part of its name between the key and the suffix
  for member in members:
    middle, _, suffix = split_name(member.name)[1].rpartition(".")
    if suffix in SUFFIXES:
      images.append((middle, member))
  if any(not middle for middle, _ in images):
    images = [(m, member) for m, member in images if not m or m[-1:].isdecimal()]
  return [member for _, member in images]


def _read_sample(file: io.BufferedIOBase, members: list[TarInfo]) -> Record:
  last = members[-1]
  offset = members[0].offset
  length = last.offset_data + -(-last.size // BLOCK) * BLOCK - offset
  key = name_sample(members)

  def fault(reason: str, detail: str) -> Record:
    return Record(offset, length, None, reason, f"{key}: {detail}", id=key)

  texts = _find_texts(members)
  if not texts:
    return fault("malformed", f"no member .json beside it; {_TOGETHER}")
  if len(texts) > 1:
    return fault("malformed", f"{len(texts)} members .json, but a sample has one")
  if texts[0].size > records.MOST_BYTES:
    return fault("malformed", f"{texts[0].size:,} bytes of JSON")
  value, detail = parsing.parse_bytes(read_member(file, texts[0]))
  if value is None:
    return fault("malformed", detail)
  if _DOWNLOADED <= value.keys() and not value.keys() & _TALK:
    return fault("malformed", "img2dataset's metadata, which holds no conversation")
  pictures = []
  for member in _find_images(members):
    if member.size > image_folders.MOST_BYTES:
      return fault("huge image", f"{member.size:,} bytes in {member.name}")
    pictures.append(Picture(member.name, read_member(file, member)))
  if len(pictures) == 1 and isinstance(name := value.get("image"), str) and name:
    pictures = [pictures[0]._replace(name=name)]
  return Record(offset, length, value, pictures=tuple(pictures), id=key)
