"""The beginnings of rows that other rows may share, known by a hash.

Rows that begin with the same tokens and the same images share that beginning in one
packed row, so that it is computed once (tree_packing.py). Every row with an image
offers several: what precedes its first image, and what ends with each of its images.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64

from mllm_selector_jax.types import Sample


class Prefix(NamedTuple):
  """One beginning of a row.

  Attributes:
    tokens: of it.
    tiles, taps: of the images in it.
    key: equal where the tokens, those of questions among them and the images' pixels
      are; never 0.
    asked: how many of the tokens are of questions.
  """

  tokens: int
  tiles: int
  taps: int
  key: int
  asked: int = 0


@dataclasses.dataclass(frozen=True)
class Prefixes:
  """The prefixes of several rows, those of a row in ascending length.

  Attributes:
    bounds: where each row's prefixes begin among the others' arrays, and the end.
    tokens, tiles, taps, keys, asked: see `Prefix`.
  """

  bounds: Int[np.ndarray, " bounds"]
  tokens: Int[np.ndarray, " p"]
  tiles: Int[np.ndarray, " p"]
  taps: Int[np.ndarray, " p"]
  keys: UInt64[np.ndarray, " p"]
  asked: Int[np.ndarray, " p"]

  def __len__(self) -> int:
    """Rows."""
    return len(self.bounds) - 1

  def take(
    self, rows: Int[np.ndarray, " K"], first: int = 0, last: int | None = None
  ) -> "Prefixes":
    """The prefixes of some rows, of each those from `first` up to `last`."""
    starts, stops = self.bounds[:-1][rows] + first, self.bounds[1:][rows]
    if last is not None:
      stops = np.minimum(stops, starts + last - first)
    counts = np.maximum(stops - starts, 0)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    place = np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], counts)
    columns = self.tokens, self.tiles, self.taps, self.keys, self.asked
    return Prefixes(bounds, *(column[place] for column in columns))

  def drop_questions(self) -> "Prefixes":
    """The prefixes of the same rows without the tokens of their questions."""
    return dataclasses.replace(
      self, tokens=self.tokens - self.asked, asked=np.zeros_like(self.asked)
    )


def list_prefixes(sample: Sample, pixels: Sequence[str]) -> list[Prefix]:
  """The beginnings of a row that others may share.

  The first is what precedes the first image, the others end with an image each. A
  beginning that holds a supervised token, or is followed by one, is not among them:
  its last position would predict a token that the other rows do not have.

  Args:
    sample: of the row.
    pixels: a hash of the pixels of each image.
  """
  found: list[Prefix] = []
  tiles = taps = 0
  digest = hashlib.blake2b(digest_size=8)
  done = 0
  for image, name in zip(sample.images, pixels, strict=True):
    if sample.supervised[: image.stop + 1].any():
      break
    if not found:
      key = _key(digest, sample, 0, image.start)
      found.append(Prefix(image.start, 0, 0, key, _count_asked(sample, image.start)))
      done = image.start
    digest.update(name.encode())
    tiles += image.layout.tiles
    taps += len(image.layout.taps)
    key = _key(digest, sample, done, image.stop)
    asked = _count_asked(sample, image.stop)
    found.append(Prefix(image.stop, tiles, taps, key, asked))
    done = image.stop
  return found


def _key(digest, sample: Sample, start: int, stop: int) -> int:
  """Updates the digest with the tokens from start to stop, and returns its number."""
  digest.update(np.ascontiguousarray(sample.tokens[start:stop], "<i4").data)
  digest.update(np.ascontiguousarray(sample.asked[start:stop]).data)
  return int.from_bytes(digest.digest(), "big") or 1


def _count_asked(sample: Sample, stop: int) -> int:
  return int(np.count_nonzero(sample.asked[:stop]))


def no_prefixes(rows: int) -> Prefixes:
  """Returns the prefixes of a number of rows that share nothing."""
  none = np.zeros(0, np.int64)
  return Prefixes(
    np.zeros(rows + 1, np.int64), none, none, none, np.zeros(0, np.uint64), none
  )
