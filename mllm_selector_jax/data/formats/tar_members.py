"""The members of a tar, in order, and which of them are one sample."""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from tarfile import TarInfo

from mllm_selector_jax.types import InputError

BLOCK = 512  # bytes that a tar consists of
_CHUNK = 1 << 20


def is_header(block: bytes) -> bool:
  """Whether a block begins a member, by its mark or its checksum."""
  if block[257:262] == b"ustar":
    return True
  try:
    TarInfo.frombuf(block[:BLOCK], tarfile.ENCODING, "surrogateescape")
  except (tarfile.TarError, ValueError, OverflowError):
    return False
  return True


def split_name(name: str) -> tuple[str, str]:
  """A member's key and its suffix, which is in lower case."""
  folder, slash, base = name.rpartition("/")
  key, _, suffix = base.partition(".")
  return f"{folder}{slash}{key}", suffix.lower()


def read_member(file: io.BufferedIOBase, member: TarInfo) -> bytes:
  file.seek(member.offset_data)
  return file.read(member.size)


def list_members(path: str, file: io.BufferedIOBase) -> Iterator[TarInfo]:
  """Regular members, in order, of one tar or several that were joined.

  Raises:
    InputError: something else ends the archive early.
  """
  end = file.seek(0, os.SEEK_END)
  place = 0
  while place is not None:
    place = yield from _list_one(path, file, place, end)


def _list_one(path: str, file: io.BufferedIOBase, place: int, end: int):
  """The members of the tar that begins at a place; gives where the next one does."""
  file.seek(place)
  try:
    with tarfile.open(fileobj=file, mode="r:") as archive:
      while (member := archive.next()) is not None:
        # It would remember them all; the attribute is not documented.
        archive.members.clear()  # type: ignore[attr-defined]
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
  # tarfile takes a damaged header for the end. A tar that was joined to this one
  # begins after its end, which is at least one block of zeros.
  first = place
  while chunk := _read_at(file, place):
    blank = len(chunk) - len(chunk.lstrip(b"\0"))
    if blank == len(chunk):
      place += len(chunk)
      continue
    place += blank // BLOCK * BLOCK
    block = _read_at(file, place)[:BLOCK]
    if place == first or not is_header(block):
      what = "is cut off" if len(block) < BLOCK else "has a damaged header"
      raise InputError(f"{path}, byte {place:,}: the tar {what}. Copy the file again.")
    return place
  return None


def _read_at(file: io.BufferedIOBase, place: int) -> bytes:
  file.seek(place)
  return file.read(_CHUNK)


def group_members(members: Iterable[TarInfo]) -> Iterator[list[TarInfo]]:
  """Runs of members of one sample.

  A sample's key is what precedes the first dot of a name. Where a name with dots
  (`a.b.1.json`) has a record and more of its own, it is a key as well.
  """
  sample: list[TarInfo] = []
  for member in members:
    if sample and _begins(sample, member):
      yield sample
      sample = []
    sample.append(member)
  if sample:
    yield sample


def _begins(sample: list[TarInfo], member: TarInfo) -> bool:
  """Whether a member is not of the sample before it."""
  if split_name(member.name)[0] != split_name(sample[0].name)[0]:
    return True
  stem = _stem(sample[-1].name)
  if stem in (_stem(member.name), split_name(member.name)[0]):
    return False
  same = [other for other in sample if _stem(other.name) == stem]
  texts = [other for other in same if other.name.lower().endswith(".json")]
  # `a.1.json` after `a.0.json` is another sample; `a.mask.png` after `a.json` is not.
  (before, _, last), (other, _, new) = (
    each.rpartition(".") for each in (stem, _stem(member.name))
  )
  counted = last[-1:].isdecimal() and new[-1:].isdecimal()
  return len(texts) == 1 and len(same) == len(sample) and before == other and counted


def name_sample(members: list[TarInfo]) -> str:
  """A sample's key."""
  stems = {_stem(member.name) for member in members}
  if len(stems) == 1 and (len(members) > 1 or next(iter(stems))[-1:].isdecimal()):
    return stems.pop()
  return split_name(members[0].name)[0]


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]
