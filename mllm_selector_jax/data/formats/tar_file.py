"""WebDataset: a tar of samples, `<key>.json` and `<key>.jpg` side by side."""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mllm_selector_jax.data import image_folders, parsing, records, storage
from mllm_selector_jax.data.formats.base import PoolFile, changed, explain
from mllm_selector_jax.types import InputError, Picture, Record

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
_BLOCK = 512  # bytes that a tar consists of
_CHUNK = 1 << 20


class TarFile(PoolFile):
  """Samples whose members follow one another and share what precedes the first dot.

  The member `json` is the record. Members with an image's suffix are its images, in
  order; other members, and what is no whole regular file, are not read.
  """

  name = "WebDataset tar"

  @classmethod
  def matches(cls, path: str, head: bytes) -> bool:
    return head[257:262] == b"ustar" or (
      path.endswith(".tar") and len(head) == _BLOCK and head[:1].isalnum()
    )

  def records(self) -> Iterator[Record]:
    try:
      with storage.open_binary(self.path) as file:
        found = False
        for members in _group(_list_members(self.path, file)):
          found = True
          yield _read_sample(file, members)
    except OSError as error:
      raise explain(self.path, error) from error
    if not found:
      raise InputError(
        f"{self.path}: the tar holds no sample; expected <key>.json beside its image."
      )

  def read(self, offset: int, length: int) -> Record:
    piece = io.BytesIO(records.record_bytes(self.path, offset, length))
    try:
      (members,) = _group(_list_members(self.path, piece))
    except (InputError, ValueError) as error:
      raise changed(self.path, f"no sample at byte {offset:,}") from error
    return _read_sample(piece, members)._replace(offset=offset, length=length)

  def image_names(self) -> Iterator[str]:
    return iter(())  # a sample's images are its members

  def text(self, offset: int, length: int) -> bytes:
    piece = io.BytesIO(records.record_bytes(self.path, offset, length))
    for member in _list_members(self.path, piece):
      if _split(member.name)[1] == "json":
        return _read_member(piece, member)
    raise changed(self.path, f"no sample at byte {offset:,}")

  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    with open(out, "wb") as file:
      for place in places:
        file.write(records.record_bytes(self.path, *place))
      file.write(bytes(2 * _BLOCK))


def _split(name: str) -> tuple[str, str]:
  """A member's key and its suffix."""
  folder, slash, base = name.rpartition("/")
  key, _, suffix = base.partition(".")
  return f"{folder}{slash}{key}", suffix.lower()


def _list_members(path: str, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
  """Regular members, in order; whatever ends the archive early is an error."""
  end = file.seek(0, os.SEEK_END)
  file.seek(0)
  place = 0
  try:
    with tarfile.open(fileobj=file, mode="r:") as archive:
      while (member := archive.next()) is not None:
        archive.members.clear()  # it would remember them all
        if archive.offset > end or member.size < 0 or archive.offset <= place:
          raise tarfile.ReadError("unexpected end of data")
        hidden = os.path.basename(member.name).startswith(".")
        if member.isreg() and member.sparse is None and not hidden:
          yield member
        place = archive.offset
  # Broken headers make tarfile raise more than its own errors.
  except (tarfile.TarError, ValueError, OverflowError, EOFError, KeyError) as error:
    raise InputError(
      f"{path}, byte {place:,}: the tar is broken there ({error}). Copy the file again."
    ) from error
  # tarfile takes a damaged header for the end.
  file.seek(place)
  while chunk := file.read(_CHUNK):
    if chunk.strip(b"\0"):
      raise InputError(
        f"{path}, byte {place:,}: the tar ends here, and data follow: a header is"
        " damaged, or several tars were joined. Copy the file again, or give each tar."
      )
    place += len(chunk)


def _group(members: Iterable[tarfile.TarInfo]) -> Iterator[list[tarfile.TarInfo]]:
  """Runs of members of one key."""
  sample: list[tarfile.TarInfo] = []
  for member in members:
    if sample and _split(member.name)[0] != _split(sample[0].name)[0]:
      yield sample
      sample = []
    sample.append(member)
  if sample:
    yield sample


def _read_sample(file: BinaryIO, members: list[tarfile.TarInfo]) -> Record:
  last = members[-1]
  offset = members[0].offset
  length = last.offset_data + -(-last.size // _BLOCK) * _BLOCK - offset
  key = _split(members[0].name)[0]

  def fault(reason: str, detail: str) -> Record:
    return Record(offset, length, None, reason, f"{key}: {detail}", id=key)

  texts = [member for member in members if _split(member.name)[1] == "json"]
  if len(texts) != 1:
    return fault("malformed", f"{len(texts)} members .json, a sample has one")
  if texts[0].size > records.MOST_BYTES:
    return fault("malformed", f"{texts[0].size:,} bytes of JSON")
  value, detail = parsing.parse_bytes(_read_member(file, texts[0]))
  if value is None:
    return fault("malformed", detail)
  pictures = []
  for member in members:
    if _split(member.name)[1].rpartition(".")[2] in SUFFIXES:
      if member.size > image_folders.MOST_BYTES:
        return fault("huge image", f"{member.size:,} bytes in {member.name}")
      pictures.append(Picture(member.name, _read_member(file, member)))
  if len(pictures) == 1 and isinstance(name := value.get("image"), str) and name:
    pictures = [pictures[0]._replace(name=name)]
  return Record(offset, length, value, pictures=tuple(pictures), id=key)


def _read_member(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
  file.seek(member.offset_data)
  return file.read(member.size)
