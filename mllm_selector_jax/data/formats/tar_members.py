"""Lists the members of a tar in order, and groups them to samples."""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from tarfile import TarInfo

from mllm_selector_jax.types import InputError

BLOCK = 512  # size in bytes of the blocks that a tar consists of
_CHUNK = 1 << 20  # bytes


def is_header(block: bytes) -> bool:
  """Returns whether a block is the header of a member, by its magic or checksum."""
  if block[257:262] == b"ustar":
    return True
  try:
    TarInfo.frombuf(block[:BLOCK], tarfile.ENCODING, "surrogateescape")
  except (tarfile.TarError, ValueError, OverflowError):
    return False
  return True


def split_name(name: str) -> tuple[str, str]:
  """Splits a member's name at its first dot into key and suffix, in lower case."""
  folder, slash, base = name.rpartition("/")
  key, _, suffix = base.partition(".")
  return f"{folder}{slash}{key}", suffix.lower()


def read_member(file: io.BufferedIOBase, member: TarInfo) -> bytes:
  """Reads the contents of a member of the open tar."""
  file.seek(member.offset_data)
  return file.read(member.size)


def list_members(path: str, file: io.BufferedIOBase) -> Iterator[TarInfo]:
  """Yields the regular members, in order, of one tar or of several concatenated ones.

  Raises:
    InputError: the archive is damaged or cut off.
  """
  end = file.seek(0, os.SEEK_END)
  start: int | None = 0
  while start is not None:
    start = yield from _list_archive(path, file, start, end)


def _list_archive(path: str, file: io.BufferedIOBase, start: int, end: int):
  """Yields the members of the tar that begins at `start`.

  Args:
    path: the path of the file, for messages.
    file: the open file.
    start: the offset in the file at which the tar begins.
    end: the size of the file.

  Returns:
    The offset at which the next of several concatenated tars begins; None if this was
    the last one.
  """
  offset = start  # up to which the tar has been read
  file.seek(start)
  try:
    with tarfile.open(fileobj=file, mode="r:") as archive:
      while (member := archive.next()) is not None:
        # The archive would hold every member in memory. The attribute is undocumented.
        archive.members.clear()  # type: ignore[attr-defined]
        if archive.offset > end or member.size < 0 or archive.offset <= offset:
          raise tarfile.ReadError("unexpected end of data")
        hidden = os.path.basename(member.name).startswith(".")
        if member.isreg() and member.sparse is None and not hidden:
          yield member
        offset = archive.offset
  # Broken headers make tarfile raise more than its own errors; a long name that is said
  # to have terabytes, a MemoryError.
  except (
    *(tarfile.TarError, ValueError, OverflowError, EOFError, KeyError, MemoryError),
  ) as error:
    raise InputError(
      f"{path}, byte {offset:,}: the tar is broken there"
      f" ({str(error) or type(error).__name__})."
      " Copy the file again."
    ) from error
  # tarfile takes a damaged header for the end of the archive. The end is at least one
  # block of zeros, and only behind it may another tar begin.
  stop = offset
  while chunk := _read_at(file, offset):
    zeros = len(chunk) - len(chunk.lstrip(b"\0"))
    if zeros == len(chunk):
      offset += len(chunk)
      continue
    offset += zeros // BLOCK * BLOCK
    block = _read_at(file, offset)[:BLOCK]
    if offset == stop or not is_header(block):
      fault = "is cut off" if len(block) < BLOCK else "has a damaged header"
      raise InputError(
        f"{path}, byte {offset:,}: the tar {fault}. Copy the file again."
      )
    return offset
  return None


def _read_at(file: io.BufferedIOBase, offset: int) -> bytes:
  file.seek(offset)
  return file.read(_CHUNK)


def group_members(members: Iterable[TarInfo]) -> Iterator[list[TarInfo]]:
  """Groups consecutive members to samples.

  A sample's key is the part of its members' names before the first dot. If several
  records share this part (`a.b.1.json`, `a.b.2.json`), it is the part before the last
  dot.
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
  """Returns whether a member begins a new sample, rather than continuing this one."""
  if split_name(member.name)[0] != split_name(sample[0].name)[0]:
    return True
  stem = _stem(sample[-1].name)
  if stem in (_stem(member.name), split_name(member.name)[0]):
    return False
  same_stem = [other for other in sample if _stem(other.name) == stem]
  records = [other for other in same_stem if other.name.lower().endswith(".json")]
  # `a.1.json` after `a.0.json` is another sample; `a.mask.png` after `a.json` is not.
  prefix, _, number = stem.rpartition(".")
  next_prefix, _, next_number = _stem(member.name).rpartition(".")
  return (
    len(records) == 1
    and len(same_stem) == len(sample)
    and prefix == next_prefix
    and number[-1:].isdecimal()
    and next_number[-1:].isdecimal()
  )


def name_sample(members: list[TarInfo]) -> str:
  """Returns the key of a sample."""
  stems = {_stem(member.name) for member in members}
  if len(stems) == 1 and (len(members) > 1 or next(iter(stems))[-1:].isdecimal()):
    return stems.pop()
  return split_name(members[0].name)[0]


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]
