"""The kept rows of a pool as an export takes them, and where their images are."""

import collections
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.formats.pool_file import as_json
from mllm_selector_jax.data.images.image_folders import AnyFolders, ImageFolders
from mllm_selector_jax.data.images.pictures import read_all
from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.data.pool.row_reading import is_unnamed
from mllm_selector_jax.data.record_schemas import SYSTEM, Content
from mllm_selector_jax.data.record_schemas.grounding import FIELD
from mllm_selector_jax.types import InputError, Picture, RowError

_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"GI": ".gif"}
_SUFFIXES |= {b"BM": ".bmp", b"II": ".tif", b"MM": ".tif"}
MASK = "loss"  # the field of a turn that says whether it is learned


class Row(NamedTuple):
  """One kept row.

  Attributes:
    row: its number in the pool.
    value: the record.
    content: what is read of it.
    images: the images' paths for a trainer.
    data: each image file's bytes.
  """

  row: int
  value: dict[str, Any]
  content: Content
  images: list[str]
  data: list[bytes]

  @property
  def objects(self) -> tuple[str, ...]:
    """The name of the record's field of boxes, if its turns have marks for them."""
    return () if self.content.grounding is None else (FIELD,)

  @property
  def others(self) -> dict[str, Any]:
    """The record's fields beside its conversation and images, its id among them."""
    left = {k: v for k, v in self.value.items() if k not in self.content.used}
    labels = {k: self.value[k] for k in record_schemas.LABELS if k in self.value}
    return as_json(labels | left)


class Kept:
  """The kept rows of a pool, and where their images are for a trainer.

  Args:
    pool: the checked pool.
    rows: numbers of the kept rows, ascending.
    folders: of the pool's images.
    written: folder for the images that lie inside records or pool files.
    final: where that folder will be in the end.

  Attributes:
    images: the folder that a trainer is given for relative paths.
    ignored: rows by what the trainer of the format at hand does not read of them.
  """

  def __init__(
    self,
    pool: PoolTable,
    rows: list[int],
    folders: AnyFolders,
    written: Path,
    final: Path,
  ):
    self.pool = pool
    self.rows = rows
    self.ignored: collections.Counter[str] = collections.Counter()
    self._folders = ImageFolders.of(folders)
    self._written = written
    self._final = final
    self._inside = self._has_images_inside()
    paths = self._folders.folders or (".",)
    self.images = final if self._inside else Path(os.path.abspath(paths[0]))

  def __iter__(self) -> Iterator[Row]:
    self.ignored.clear()
    for row in self.rows:
      yield self._read(row)

  def ignore(self, row: Row, read: frozenset[str]) -> None:
    """Counts what of a row is written, and not read by the trainer.

    Args:
      row: that is written.
      read: the fields that it reads beside the conversation and the image.
    """
    stated = (*row.content.unread, *row.objects)
    fields = {f"the field {name}" for name in stated if name not in read}
    if SYSTEM not in read and any(t.speaker == SYSTEM for t in row.content.turns):
      fields.add("the row's own system text")
    if MASK not in read and not all(turn.learned for turn in row.content.turns):
      fields.add("that an answer is not to be learned")
    self.ignored.update(fields)

  def _has_images_inside(self) -> bool:
    """Whether some images are not in files of their own."""
    files = dict.fromkeys(self.pool.file[row] for row in self.rows)
    if any(formats.find_format(file) is not formats.JsonFile for file in files):
      return True
    return any(is_unnamed(name) for row in self.rows for name in self.pool.images[row])

  def _read(self, row: int) -> Row:
    record = self.pool.record(row)
    try:
      content = record_schemas.read_content(record)
      data = read_all(content.pictures, self._folders)
      digests = self.pool.image_hashes[row]
      names = [
        self._name(digest, picture, content_bytes)
        for digest, picture, content_bytes in zip(
          digests, content.pictures, data, strict=True
        )
      ]
    except (RowError, ValueError) as error:
      raise InputError(
        f"Row {row:,} (id {self.pool.id[row]}) changed since the pool was checked:"
        f" {error}. Put the old file back, or check the pool again with --force."
      ) from error
    assert record.value is not None, "no content is read without a value"
    return Row(row, record.value, content, names, data)

  def _name(self, digest: str, picture: Picture, data: bytes) -> str:
    """Returns the path by which a trainer finds an image."""
    if self._inside:
      return self._write(digest, data)
    assert picture.name is not None, "an image outside of pool files has a name"
    path = os.path.abspath(self._folders.find(picture.name).path)
    plain = not os.path.isabs(picture.name) and "://" not in picture.name
    if plain and os.path.normpath(self.images / picture.name) == path:
      return picture.name
    return path

  def _write(self, digest: str, data: bytes) -> str:
    name = f"{digest[:2]}/{digest}{_SUFFIXES.get(data[:2], '.img')}"
    path = self._written / name
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(data)
    return name
