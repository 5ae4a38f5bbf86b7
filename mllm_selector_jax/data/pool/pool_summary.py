"""What a pool holds, counted row by row."""

import array
import collections
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.pool import special_counts
from mllm_selector_jax.data.pool.pool_table import Line
from mllm_selector_jax.data.tokens.specials import Count

EXAMPLES = 5  # rows shown of each reason

# What is counted of usable rows, see `check`; `UNREAD` is followed by a field's name.
LINKED = "images reached by a symbolic link"
MASKED = "answers that the record itself masks, not learned"
GROUNDED = "boxes or names of objects, written into the text as the base's family does"
OTHER_PIXELS = "boxes spelled in the text, left so; the model sees the image resized"
SYSTEM_USED = "a system text of the row's own, used"
UNREAD = "not read: "
LIMITS = ("max_tiles", "resize_pixels")  # of model, in the order of `Saved`
_MOST_REMARKS = 100  # kinds that are counted apart
_OTHER = f"{UNREAD}further fields"
_MOST_DETAIL = 200  # characters
PERCENTILES = (5, 25, 50, 75, 95, 99)


class Tally:
  """Counts lines as they come, in little memory.

  Args:
    images: how images become tokens, for what its limits save.

  Attributes:
    rows: counted so far.
    ok: those that can be used.
  """

  def __init__(self, images: BaseImages | None = None):
    self._base_images = images
    self._saved: dict[str, list[int]] = {}  # by limit: images, and tokens
    self.rows = 0
    self.ok = 0
    self._aside: collections.Counter[str] = collections.Counter()
    self._examples: dict[str, list[dict[str, Any]]] = {}
    self._sources: dict[str, list[int]] = {}
    self._text_only = 0
    self._truncated = 0
    # Rows of each length: pools have many rows and few lengths.
    self._turns: collections.Counter[int] = collections.Counter()
    self._tokens: collections.Counter[int] = collections.Counter()
    self._supervised: collections.Counter[int] = collections.Counter()
    self._images_used = array.array("Q")  # by each row, by its hash
    self._image_bytes = array.array("I")
    self._images: collections.Counter[int] = collections.Counter()  # of a row
    self._tiles = self._image_tokens = 0
    self._remarks: collections.Counter[str] = collections.Counter()
    self._specials = special_counts.SpecialTally()
    self._contents = array.array("Q")  # the first 64 bits of each row's hash
    self._rows = array.array("q")  # that have one
    self._ids = array.array("Q")

  def add(
    self,
    line: Line,
    image_bytes: Sequence[int],
    remarks: Sequence[str] = (),
    specials: Sequence[Count] = (),
  ) -> None:
    """Counts one row, as `Checked` has it."""
    self.rows += 1
    self._specials.add(specials)
    self._ids.append(_shorten(line.id))
    for remark in remarks:
      known = remark in self._remarks or len(self._remarks) < _MOST_REMARKS
      self._remarks[remark if known else _OTHER] += 1
    source = self._sources.setdefault(line.source, [0, 0])
    source[0] += 1
    if line.status != "ok":
      assert line.reason is not None, "a row set aside has a reason"
      self._aside[line.reason] += 1
      examples = self._examples.setdefault(line.reason, [])
      if len(examples) < EXAMPLES:
        detail = (line.detail or "")[:_MOST_DETAIL]
        examples.append({"row": line.row, "id": line.id[:80], "detail": detail})
      return
    self.ok += 1
    source[1] += 1
    self._truncated += line.truncated
    assert line.hash is not None, "a usable row has a hash"
    self._contents.append(int(line.hash[:16], 16))
    self._rows.append(line.row)
    self._turns[line.turns] += 1
    self._tokens[line.tokens] += 1
    self._supervised[line.supervised] += 1
    self._text_only += not line.images
    self._images[len(line.images)] += 1
    self._tiles += line.tiles
    self._image_tokens += line.image_tokens
    self._count_saved(line)
    hashes = dict(zip(line.image_hashes, image_bytes, strict=True))
    self._images_used.extend(map(_shorten, hashes))
    self._image_bytes.extend(hashes.values())

  def result(self) -> dict[str, Any]:
    """Returns all counts as JSON values, which are the same for the same pool.

    All but "rows", "distinct_ids", "aside" and "sources" are of the rows that can
    be used.
    """
    order = sorted(self._aside, key=lambda reason: (-self._aside[reason], reason))
    sources = sorted(self._sources.items(), key=lambda item: (-item[1][0], item[0]))
    return {
      "rows": self.rows,
      "ok": self.ok,
      "distinct_ids": len(np.unique(np.asarray(self._ids))),
      "duplicates": self._find_duplicates(),
      "remarks": dict(sorted(self._remarks.items(), key=lambda x: (-x[1], x[0]))),
      "specials": self._specials.result(),
      "aside": {
        reason: {"rows": self._aside[reason], "examples": self._examples[reason]}
        for reason in order
      },
      "sources": {name: {"rows": n, "ok": ok} for name, (n, ok) in sources},
      "text_only": self._text_only,
      "truncated": self._truncated,
      "turns": {
        **_describe(self._turns),
        "histogram": {str(value): self._turns[value] for value in sorted(self._turns)},
      },
      "tokens": _describe(self._tokens),
      "supervised": _describe(self._supervised),
      "images": {
        **self._count_uses(),
        "a_row": {str(count): self._images[count] for count in sorted(self._images)},
        "tiles": self._tiles,
        "tokens": self._image_tokens,
        "saved": {
          limit: {"images": images, "tokens": tokens}
          for limit, (images, tokens) in self._saved.items()
        },
      },
    }

  def _count_uses(self) -> dict[str, int]:
    """Counts the images and the rows that use them."""
    sizes = np.asarray(self._image_bytes)
    _, first, uses = np.unique(
      np.asarray(self._images_used), return_index=True, return_counts=True
    )
    return {
      "distinct": len(first),
      "rows": self.ok - self._text_only,
      "uses": len(sizes),
      "shared_uses": int(uses[uses > 1].sum()),
      "bytes": int(sizes[first].sum()),
    }

  def _count_saved(self, line: Line) -> None:
    """Counts what the limits of images save of a usable row."""
    images = self._base_images
    limits = [limit for limit in LIMITS if images and getattr(images, limit)]
    if images is None or not limits:
      return
    sizes = list(zip(line.sizes[::2], line.sizes[1::2], strict=True))
    for size in sizes:
      saved = images.count_saved(*size, len(sizes))
      for limit in limits:
        tokens = saved[LIMITS.index(limit)]
        counts = self._saved.setdefault(limit, [0, 0])
        counts[0] += tokens != 0
        counts[1] += tokens

  def _find_duplicates(self) -> dict[str, Any]:
    """Counts the rows that repeat an earlier row, and lists the first of them."""
    keys, rows = np.asarray(self._contents), np.asarray(self._rows)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    again = np.sort(order[repeated])
    first = order[np.searchsorted(ordered, keys[again[:EXAMPLES]])]
    examples = [
      {"row": int(row), "same_as": int(same)}
      for row, same in zip(rows[again[:EXAMPLES]], rows[first], strict=True)
    ]
    return {"rows": len(again), "examples": examples}


def _shorten(text: str) -> int:
  """The 64 bits by which texts are told apart where they are counted."""
  digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
  return int.from_bytes(digest)


def _describe(lengths: collections.Counter[int]) -> dict[str, Any]:
  """Describes lengths, by the number of rows that have each."""
  if not lengths:
    return {"total": 0, "least": 0, "mean": 0.0, "most": 0, "percentiles": {}}
  values = np.asarray(sorted(lengths))
  counts = np.asarray([lengths[value] for value in values.tolist()])
  rows, total = int(counts.sum()), int(values @ counts)
  # The least length that as large a share of the rows does not exceed: lengths are
  # whole, so that none is interpolated.
  ranks = [-(-mark * rows // 100) for mark in PERCENTILES]
  marks = values[np.searchsorted(np.cumsum(counts), ranks)]
  return {
    "total": total,
    "least": int(values[0]),
    "mean": round(total / rows, 3),
    "most": int(values[-1]),
    "percentiles": {
      str(mark): int(value) for mark, value in zip(PERCENTILES, marks, strict=True)
    },
  }
