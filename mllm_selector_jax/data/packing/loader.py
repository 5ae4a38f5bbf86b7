"""Loads rows of the checked pool as packed batches, with grain reading ahead."""

import collections
import dataclasses
import hashlib
import threading
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.images.pictures import read_picture
from mllm_selector_jax.data.packing import assembly, row_packing
from mllm_selector_jax.data.pool import special_counts
from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.data.tokens.conversation import Encoder
from mllm_selector_jax.data.tokens.dialogue import read_dialogue
from mllm_selector_jax.data.tokens.specials import Count
from mllm_selector_jax.types import Batch, InputError, Picture, RowError, Sample


class Cache:
  """The most recently used values, up to a number of bytes; thread-safe."""

  def __init__(self, limit: int):
    self._limit = limit
    self._held = 0
    self._values: collections.OrderedDict = collections.OrderedDict()
    self._lock = threading.Lock()

  def get(self, key: Any) -> Any:
    with self._lock:
      if key not in self._values:
        return None
      self._values.move_to_end(key)
      return self._values[key][0]

  def put(self, key: Any, value: Any, size: int) -> None:
    with self._lock:
      if key in self._values:
        return
      self._values[key] = value, size
      self._held += size
      while self._held > self._limit and self._values:
        self._held -= self._values.popitem(last=False)[1][1]


# What an array takes beside its elements, and a sample with its place in a cache beside
# its arrays: bytes, as measured, with what the allocator loses between them.
_ARRAY_BYTES, _SAMPLE_BYTES = 250, 700
# The same of an image's tiles; most of it is lost where threads decode small images.
_IMAGE_BYTES = 5000


def measure_sample(sample: Sample) -> int:
  """Returns about how many bytes of memory a sample takes in a cache."""
  arrays = [sample.tokens, sample.supervised, sample.turns, sample.asked]
  for image in sample.images:
    arrays += [part for part in image.layout if isinstance(part, np.ndarray)]
  return _SAMPLE_BYTES + sum(array.nbytes + _ARRAY_BYTES for array in arrays)


@runtime_checkable
class RowReader(Protocol):
  """What reads rows for batches: the pool's `Reader`, or one that changes its rows.

  Attributes:
    encoder: conversation to tokens; its `image_token` marks an image's places.
  """

  @property
  def encoder(self) -> Any: ...

  def read(self, row: int) -> assembly.Example:
    """Gives the tokens of a row, and the tiles of its images."""


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads rows of a checked pool as the model sees them.

  Attributes:
    table: the checked pool.
    encoder: turns conversations into tokens, and images into tiles.
    folders: of the images.
    max_pixels: larger images are refused.
    cache: holds tokens and pixels that were read.
    keeps_tokens: whether rows are read again, so that their tokens are worth keeping;
      an image may be that of further rows in any case.
  """

  table: PoolTable
  encoder: Encoder
  folders: ImageFolders
  max_pixels: int
  cache: Cache
  keeps_tokens: bool = True

  def read(self, row: int) -> assembly.Example:
    """The tokens of a row, and the tiles of its images.

    Raises:
      InputError: the row's record or image is not the one that was checked.
    """
    names, digests = self.table.images[row], self.table.image_hashes[row]
    several = self.encoder.images.is_several(len(names))
    keys = [
      ("image", name, digest, several)
      for name, digest in zip(names, digests, strict=True)
    ]
    sample = self.cache.get(("row", row))
    tiles = [self.cache.get(key) for key in keys]
    if sample is not None and all(cut is not None for cut in tiles):
      return sample, tuple(tiles)
    try:
      content = record_schemas.read_content(self.table.record(row))
      if sample is None:
        sizes = self.table.image_sizes(row)
        turns = self.encoder.boxes.write(content, sizes)
        sample = self.encoder.encode(turns, sizes)
    except RowError as error:
      raise _changed(f"the record of row {row}", f"it is unusable ({error})") from error
    if self.keeps_tokens:
      self.cache.put(("row", row), sample, measure_sample(sample))
    if len(content.pictures) != len(names):
      raise _changed(
        f"the record of row {row}", f"it has {len(content.pictures)} images"
      )
    for number, (key, picture) in enumerate(zip(keys, content.pictures, strict=True)):
      if tiles[number] is None:
        cut = self._cut(f"{key[1]} (row {row})", picture, key[2], len(names))
        tiles[number] = cut
        self.cache.put(key, cut, cut.nbytes + _IMAGE_BYTES)
    return sample, tuple(tiles)

  def count_specials(self, row: int) -> list[Count]:
    """The added tokens that a row's turns spell; its images are not read."""
    content = record_schemas.read_content(self.table.record(row))
    sizes = self.table.image_sizes(row)
    dialogue = read_dialogue(self.encoder.boxes.write(content, sizes))
    sample = self.encoder.encode(dialogue, sizes)
    return special_counts.count_row(self.encoder, sample, dialogue)

  def _cut(
    self, what: str, picture: Picture, digest: str, images: int
  ) -> UInt8[np.ndarray, "t S S 3"]:
    prepare = self.encoder.images
    try:
      data = read_picture(picture, self.folders)
      if hashlib.sha256(data).hexdigest() != digest:
        raise _changed(what, "its bytes are others")
      image = prepare.decode(data, self.max_pixels)
    except RowError as error:
      raise _changed(what, f"it cannot be used ({error})") from error
    return prepare.cut_tiles(image, images)


def _changed(what: str, how: str) -> InputError:
  return InputError(
    f"{what} changed since the pool was checked: {how}. Put the old file back, or"
    " run with --force to check the pool again."
  )


@dataclasses.dataclass(frozen=True)
class MakeBatch:
  """Makes the batch of a step from its packed rows; the map function for grain.

  Attributes:
    reader: reads rows.
    shape: of the batch.
  """

  reader: RowReader
  shape: assembly.Shape

  def __call__(self, rows: list[list[assembly.Tree]]) -> tuple[Batch, assembly.Owners]:
    wanted = {item for trees in rows for _, items in trees for item in items}
    examples = {row: self.reader.read(row) for row in sorted(wanted)}
    return assembly.assemble(
      rows, examples, self.shape, self.reader.encoder.image_token
    )


@dataclasses.dataclass(frozen=True)
class MakeStep:
  """Makes the batch of a step given as (the number of its shape, packed rows).

  Attributes:
    reader: reads rows.
    shapes: of batches.
  """

  reader: RowReader
  shapes: tuple[assembly.Shape, ...]

  def __call__(
    self, step: tuple[int, list[list[assembly.Tree]]]
  ) -> tuple[Batch, assembly.Owners]:
    which, rows = step
    return MakeBatch(self.reader, self.shapes[which])(rows)


def as_trees(step: row_packing.Rows) -> list[list[assembly.Tree]]:
  """Returns rows of items as rows of trees without trunks."""
  return [[(0, [item]) for item in items] for items in step]


def read_batches(steps: Any, make: MakeBatch | MakeStep, threads: int = 2):
  """Returns a grain data set of (Batch, Owners) for each step, read ahead in order.

  Args:
    steps: a sequence of the steps' packed rows, of trees of pool rows; for `MakeStep`
      each with the number of its shape.
    make: reads and packs one step.
    threads: that read ahead; 0 reads on demand.
  """
  import grain

  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=2 * threads if threads else 0
  )
  return grain.MapDataset.source(steps).map(make).to_iter_dataset(options)
