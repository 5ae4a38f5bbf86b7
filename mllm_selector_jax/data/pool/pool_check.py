"""Reads a whole pool once: what each row is, and which rows cannot be used."""

import collections
import contextlib
import gc
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax.data.files import mixture
from mllm_selector_jax.data.files.disk_table import DiskTable
from mllm_selector_jax.data.images.image_folders import AnyFolders
from mllm_selector_jax.data.images.pictures import Finding, Gallery
from mllm_selector_jax.data.packing.prefixes import list_prefixes
from mllm_selector_jax.data.pool import (
  pool_summary,
  pool_table,
  sources,
  special_counts,
  summary_text,
)
from mllm_selector_jax.data.pool.checked_parts import Checked, Parts
from mllm_selector_jax.data.pool.row_hash import hash_row
from mllm_selector_jax.data.pool.row_reading import (
  PendingRow,
  PoolReading,
  describe_row,
)
from mllm_selector_jax.data.record_schemas import GPT
from mllm_selector_jax.data.tokens.conversation import Encoder
from mllm_selector_jax.data.tokens.dialogue import Dialogue, hash_answers, read_dialogue
from mllm_selector_jax.types import InputError, RowError, Sample

BLOCK_ROWS = 512  # that are tokenised at once
BLOCK_BYTES = 16 << 20  # of their records
AHEAD = 2  # blocks whose images are read while another is tokenised
COLLECT_AFTER = 50_000  # new objects; Python's own 700 cost a fifth of the time

DUPLICATES = ("keep", "aside")  # what may be done with rows or ids that repeat
LONG_ROWS = ("cut", "aside")

Progress = Callable[[int, int | None], None]


def check_pool(
  data: Sequence[str],
  images: AnyFolders,
  encoder: Encoder,
  image_pixel_cap: int,
  out: str | os.PathLike,
  workers: int = 2,
  progress: Progress | None = None,
  duplicate_ids: str = "keep",
  duplicate_rows: str = "keep",
  long_rows: str = "cut",
  source: str = "auto",
  seed: int = 0,
  resume: bool = False,
  splits: str = "train",
  max_images: int | None = None,
  video_frames: int | None = None,
) -> dict[str, Any]:
  """Reads, tokenises and decodes everything; writes the pool's table.

  Args:
    data: files of any of `formats`, or what `mixture.expand` takes for them.
    images: folders that hold the images; None if there is none.
    encoder: turns conversations into tokens; its `images` says how pixels are prepared.
    image_pixel_cap: larger images are set aside.
    out: the table's file, which appears when it is whole.
    workers: threads that read images.
    progress: is told of the rows done and of how many there may be.
    duplicate_ids: "keep" takes an id for a label that may repeat, "aside" keeps the
      first row of an id only.
    duplicate_rows: "keep" keeps rows of the same conversation and image, and counts
      them, "aside" keeps the first only.
    long_rows: "cut" cuts what is longer than the encoder's longest row, as LLaVA
      does, "aside" sets it aside.
    source: the rule that names a row's source, see `sources.make_finder`.
    seed: of the rows that a mixture takes at random.
    resume: go on after the parts that an earlier check of the same pool, with the
      same arguments, left beside `out`.
    splits: those that are taken of folders, with commas, or "all".
    max_images: rows with more images are set aside; None for no limit.
    video_frames: how many frames of a video that lies there as images are taken as a
      row's images; None sets such rows aside.

  Returns:
    What the pool holds, as JSON can have it: see `pool_summary.Tally`.

  Raises:
    InputError: a file cannot be read, or no row can be used.
    RunError: the table cannot be written.
  """
  for name, value, allowed in (
    ("duplicate_ids", duplicate_ids, DUPLICATES),
    ("duplicate_rows", duplicate_rows, DUPLICATES),
    ("long_rows", long_rows, LONG_ROWS),
  ):
    if value not in allowed:
      raise InputError(f"{name}={value!r}: allowed are {' and '.join(allowed)}.")
  if not data:
    raise InputError("No pool file is given: name at least one.")
  parts, left_out = mixture.find_files(data, splits)
  find_source = sources.make_finder(source)
  ids = DiskTable() if duplicate_ids == "aside" else None
  contents = DiskTable() if duplicate_rows == "aside" else None
  tally = pool_summary.Tally(encoder.images)
  done = Parts(out, resume)
  for checked in done.read():
    tally.add(*checked)
    if ids is not None:
      ids.add(checked.line.id)
    if contents is not None and checked.line.hash is not None:
      contents.add(checked.line.hash)
  reading = PoolReading(parts, seed, video_frames)

  def request(block: list[PendingRow]) -> None:
    gallery.request(
      (row.row, row.pictures) for row in block if row.pictures and not row.fault
    )

  with (
    Gallery(images, encoder.images, image_pixel_cap, workers) as gallery,
    _collect_seldom(),
  ):
    found = itertools.islice(reading, done.rows, None)
    rows = (describe_row(*item, find_source, ids, max_images) for item in found)
    for block in _look_ahead(_split(rows), request, AHEAD):
      for checked in _finish(block, gallery, encoder, long_rows == "cut", contents):
        done.add(checked)
        tally.add(*checked)
      if progress is not None:
        read, share = block[-1].row + 1, max(block[-1].done, 1e-9)
        progress(read, max(read, round(read / share)))
  result = tally.result()
  if not tally.ok:
    raise InputError(summary_text.explain_nothing(data, result))
  done.finish(video_frames)
  if reading.not_taken:
    result["not_taken"] = dict(reading.not_taken)
  if reading.with_frames:
    result["with_frames"] = reading.with_frames
  if left_out:
    result["left_out_files"] = {"count": len(left_out), "first": left_out[:5]}
  if progress is not None:
    progress(tally.rows, tally.rows)
  return result


@contextlib.contextmanager
def _collect_seldom() -> Iterator[None]:
  """Makes Python's cycle collector run less often, since records have no cycles."""
  thresholds = gc.get_threshold()
  if thresholds[0]:  # 0 turns collection off, and stays
    gc.set_threshold(max(COLLECT_AFTER, thresholds[0]))
  try:
    yield
  finally:
    gc.set_threshold(*thresholds)


def _split(rows: Iterable[PendingRow]) -> Iterator[list[PendingRow]]:
  """Groups rows into blocks of a bounded number of rows and bytes."""
  block, size = [], 0
  for row in rows:
    block.append(row)
    size += row.length
    if len(block) == BLOCK_ROWS or size >= BLOCK_BYTES:
      yield block
      block, size = [], 0
  if block:
    yield block


def _look_ahead(
  blocks: Iterable[list[PendingRow]],
  request: Callable[[list[PendingRow]], None],
  count: int,
) -> Iterator[list[PendingRow]]:
  """Yields the blocks; each is requested while `count` earlier ones are processed."""
  waiting: collections.deque[list[PendingRow]] = collections.deque()
  for block in blocks:
    request(block)
    waiting.append(block)
    if len(waiting) > count:
      yield waiting.popleft()
  yield from waiting


def _finish(
  block: list[PendingRow],
  gallery: Gallery,
  encoder: Encoder,
  cut: bool,
  contents: DiskTable | None,
) -> Iterator[Checked]:
  """Yields the lines of a block in order, with the counts for the summary."""
  looked = [_look(row, gallery, encoder) for row in block]
  usable = [(seen.dialogue, seen.sizes) for seen in looked if seen.dialogue is not None]
  samples = iter(encoder.encode_many(usable))
  for seen in looked:
    sample = seen.fault or next(samples)
    if not cut and not isinstance(sample, RowError) and sample.truncated:
      sample = RowError("too long", f"more than {encoder.max_length:,} tokens")
    content = None
    if not isinstance(sample, RowError):
      read = seen.row.content
      assert read is not None, "a row without content has a fault"
      content = hash_row(read.conversations, _list_hashes(seen), read.grounding)
      if contents is not None and not contents.add(content):
        sample = RowError("duplicate row", "an earlier row holds the same")
    if isinstance(sample, RowError):
      yield Checked(_describe_aside(seen, sample), _list_bytes(seen))
      continue
    assert seen.dialogue is not None and seen.row.content is not None, "no fault"
    yield Checked(
      _describe_usable(seen, sample, content),
      _list_bytes(seen),
      tuple(_list_remarks(seen, encoder)),
      tuple(special_counts.count_row(encoder, sample, seen.dialogue)),
    )


class _Looked(NamedTuple):
  """A row whose images have been looked at and whose conversation has been read.

  Attributes:
    row: as its record was read.
    images: what was found of each image.
    dialogue: what is learned of its turns; None where there is a fault.
    fault: why the row is set aside, as far as that is known without its tokens.
  """

  row: PendingRow
  images: list[Finding]
  dialogue: Dialogue | None
  fault: RowError | None

  @property
  def sizes(self) -> list[tuple[int, int]]:
    """Width and height of each image."""
    return [(image.width, image.height) for image in self.images]


def _look(row: PendingRow, gallery: Gallery, encoder: Encoder) -> _Looked:
  """Waits for a row's images and reads its conversation, unless it has a fault."""
  if row.fault is not None:
    return _Looked(row, [], None, row.fault)
  images = gallery.get(row.row, row.pictures)
  for number, image in enumerate(images):
    if image.reason is not None:
      fault = RowError(image.reason, image.detail).at_image(number, len(images))
      return _Looked(row, images, None, fault)
  assert row.content is not None, "content that cannot be read is a fault"
  seen = _Looked(row, images, None, None)
  try:
    dialogue = read_dialogue(encoder.boxes.write(row.content, seen.sizes))
  except RowError as error:
    return seen._replace(fault=error.with_traceback(None))
  return seen._replace(dialogue=dialogue)


def _list_hashes(seen: _Looked) -> tuple[str, ...]:
  """The hashes of the row's images; none where one of them cannot be used."""
  hashes = tuple(image.hash for image in seen.images if image.hash is not None)
  return hashes if len(hashes) == len(seen.images) else ()


def _list_bytes(seen: _Looked) -> tuple[int, ...]:
  return tuple(image.size for image in seen.images) if _list_hashes(seen) else ()


def _describe_images(seen: _Looked) -> dict[str, Any]:
  """The columns of a line that tell of the row's images."""
  usable = seen.images if _list_hashes(seen) else []
  return {
    "images": seen.row.images,
    "image_hashes": _list_hashes(seen),
    "pixels": tuple(image.pixels or "" for image in usable),
    "sizes": tuple(side for image in usable for side in (image.width, image.height)),
  }


def _describe_aside(seen: _Looked, fault: RowError) -> pool_table.Line:
  """The line of a row that cannot be used."""
  row = seen.row
  return pool_table.Line(
    row.row, row.id, None, row.source, **_describe_images(seen), turns=0, tokens=0,
    supervised=0, image_tokens=0, tiles=0, taps=0, prefix_tokens=(), prefix_tiles=(),
    prefix_taps=(), prefix_keys=(), prefix_asked=(), status="aside",
    reason=fault.reason, detail=fault.detail, truncated=False, file=row.file,
    offset=row.offset, length=row.length,
  )  # fmt: skip


def _describe_usable(
  seen: _Looked, sample: Sample, content: str | None
) -> pool_table.Line:
  """The line of a row that can be used."""
  row, dialogue = seen.row, seen.dialogue
  assert dialogue is not None, "a usable row has a conversation"
  layouts = [image.layout for image in sample.images]
  columns = _describe_images(seen)
  prefixes = list_prefixes(sample, columns["pixels"])
  columns_of = zip(*prefixes, strict=True) if prefixes else ((),) * 5
  tokens, tiles, taps, keys, asked = columns_of
  return pool_table.Line(
    row.row, row.id, content, row.source, **columns, turns=len(dialogue.rounds),
    tokens=len(sample.tokens), supervised=int(np.count_nonzero(sample.supervised)),
    image_tokens=sum(len(layout.tokens) for layout in layouts),
    tiles=sum(layout.tiles for layout in layouts),
    taps=sum(len(layout.taps) for layout in layouts),
    prefix_tokens=tokens, prefix_tiles=tiles, prefix_taps=taps, prefix_keys=keys,
    prefix_asked=asked, status="ok", reason=None, detail=None,
    truncated=sample.truncated, file=row.file, offset=row.offset, length=row.length,
    answer=hash_answers([turn for turn in dialogue.rounds if turn.learned]),
  )  # fmt: skip


def _list_remarks(seen: _Looked, encoder: Encoder) -> Iterator[str]:
  """What the summary counts of a usable row."""
  content, dialogue = seen.row.content, seen.dialogue
  assert content is not None and dialogue is not None, "a usable row has both"
  yield from content.notes
  if any(image.linked for image in seen.images):
    yield pool_summary.LINKED
  if any(turn.speaker == GPT and not turn.learned for turn in content.turns):
    yield pool_summary.MASKED
  if content.grounding is not None:
    yield pool_summary.GROUNDED
  if encoder.boxes.is_off(content, seen.sizes):
    yield pool_summary.OTHER_PIXELS
  if dialogue.system is not None:
    yield (
      pool_summary.SYSTEM_USED
      if encoder.takes_system
      else f"{pool_summary.UNREAD}system"
    )
  for field in content.unread:
    yield f"{pool_summary.UNREAD}{field}"
