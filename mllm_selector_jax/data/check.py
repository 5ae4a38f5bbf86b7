"""Reads a whole pool once: what each row is, and which rows cannot be used."""

import collections
import contextlib
import gc
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax.data import (
  mixture,
  record_schemas,
  sources,
  special_counts,
  summary,
  table,
)
from mllm_selector_jax.data.checked_parts import Checked, Parts
from mllm_selector_jax.data.conversation import Encoder
from mllm_selector_jax.data.image_folders import AnyFolders
from mllm_selector_jax.data.pictures import Finding, Gallery
from mllm_selector_jax.data.rounds import Dialogue, hash_answers, read_dialogue
from mllm_selector_jax.data.row_hash import hash_row
from mllm_selector_jax.data.row_reading import (
  PendingRow,
  PoolReading,
  SeenTexts,
  describe_row,
)
from mllm_selector_jax.types import (
  ImageOptions,
  InputError,
  RowError,
)

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
  options: ImageOptions,
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
) -> dict[str, Any]:
  """Reads, tokenises and decodes everything; writes the pool's table.

  Args:
    data: files of any of `formats`, or what `mixture.expand` takes for them.
    images: folders that hold the images; None if there is none.
    encoder: conversation to tokens.
    options: how pixels are prepared.
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

  Returns:
    What the pool holds, as JSON can have it: see `summary.Tally`.

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
  ids = SeenTexts() if duplicate_ids == "aside" else None
  contents = SeenTexts() if duplicate_rows == "aside" else None
  tally = summary.Tally()
  done = Parts(out, resume)
  for checked in done.read():
    tally.add(*checked)
    if ids is not None:
      ids.add(checked.line.id)
    if contents is not None and checked.line.hash is not None:
      contents.add(checked.line.hash)
  reading = PoolReading(parts, seed)

  def request(block: list[PendingRow]) -> None:
    gallery.request(
      (row.row, row.picture) for row in block if row.picture and not row.fault
    )

  with (
    Gallery(images, options, image_pixel_cap, workers) as gallery,
    _collect_seldom(),
  ):
    found = itertools.islice(reading, done.rows, None)
    rows = (describe_row(*item, find_source, ids) for item in found)
    for block in _look_ahead(_split(rows), request, AHEAD):
      for checked in _finish(block, gallery, encoder, long_rows == "cut", contents):
        done.add(checked)
        tally.add(*checked)
      if progress is not None:
        read, share = block[-1].row + 1, max(block[-1].done, 1e-9)
        progress(read, max(read, round(read / share)))
  result = tally.result()
  if not tally.ok:
    raise InputError(summary.explain_nothing(data, result))
  done.finish()
  if reading.not_taken:
    result["not_taken"] = dict(reading.not_taken)
  if left_out:
    result["left_out_files"] = {"count": len(left_out), "first": left_out[:5]}
  if progress is not None:
    progress(tally.rows, tally.rows)
  return result


@contextlib.contextmanager
def _collect_seldom() -> Iterator[None]:
  """Lets Python look for reference cycles less often: records have none."""
  thresholds = gc.get_threshold()
  if thresholds[0]:  # 0 turns collection off, and stays
    gc.set_threshold(max(COLLECT_AFTER, thresholds[0]))
  try:
    yield
  finally:
    gc.set_threshold(*thresholds)


def _split(rows: Iterable[PendingRow]) -> Iterator[list[PendingRow]]:
  """Blocks bounded in rows and in bytes."""
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
  """The blocks, each requested while `count` earlier ones are in work."""
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
  contents: SeenTexts | None,
) -> Iterator[Checked]:
  """The block's lines, in order, each with what the summary counts beside it."""
  looked = [_look(row, gallery) for row in block]
  samples = iter(
    encoder.encode_many(
      [
        (seen.dialogue, seen.row.image is not None)
        for seen in looked
        if seen.dialogue is not None
      ]
    )
  )
  for row, picture, conversations, dialogue, fault in looked:
    sample, content = fault or next(samples), None
    remarks, specials = (), ()
    if not cut and not isinstance(sample, RowError) and sample.truncated:
      sample = RowError("too long", f"more than {encoder.max_length:,} tokens")
    if not isinstance(sample, RowError):
      content = hash_row(conversations, picture.hash)
      if contents is not None and contents.add(content):
        sample = RowError("duplicate row", "an earlier row holds the same")
    if isinstance(sample, RowError):
      cells = (0, 0, 0, 0, "aside", sample.reason, sample.detail, False)
      content, answer = None, 0
    else:
      answer = hash_answers([turn for turn in dialogue.rounds if turn.learned])
      supervised = int(np.count_nonzero(sample.supervised))
      trunk = encoder.measure_trunk(sample)
      cells = (len(dialogue.rounds), len(sample.tokens), supervised, trunk)
      cells += ("ok", None, None, sample.truncated)
      remarks = tuple(
        _list_remarks(row.content, conversations, dialogue, encoder, picture)
      )
      specials = tuple(special_counts.count_row(encoder, sample, dialogue))
    line = table.Line(
      row.row, row.id, content, row.source, row.image, picture.hash,
      picture.pixels, *cells, row.file, row.offset, row.length, answer,
    )  # fmt: skip
    yield Checked(line, picture.size, remarks, specials)


class _Looked(NamedTuple):
  """A row whose image has been looked at and whose conversation has been read.

  Attributes:
    row: as its record was read.
    picture: what was found of its image.
    conversations: its turns, empty where they cannot be used.
    dialogue: what is learned from them; None where there is a fault.
    fault: why the row is set aside, as far as that is known without its tokens.
  """

  row: PendingRow
  picture: Finding
  conversations: list[dict[str, Any]]
  dialogue: Dialogue | None
  fault: RowError | None


def _look(row: PendingRow, gallery: Gallery) -> _Looked:
  """Waits for a row's image and reads its conversation, unless it has a fault."""
  picture = Finding(None, 0)
  if row.fault is not None:
    return _Looked(row, picture, [], None, row.fault)
  if row.image is not None:
    picture = gallery.get(row.row, row.picture)
    if picture.reason is not None:
      fault = RowError(picture.reason, picture.detail)
      return _Looked(row, picture, [], None, fault)
  conversations = row.content.conversations
  try:
    dialogue, fault = read_dialogue(conversations), None
  except RowError as error:
    dialogue, fault = None, error.with_traceback(None)
  return _Looked(row, picture, conversations, dialogue, fault)


def _list_remarks(
  content: record_schemas.Content,
  conversations: list[dict[str, Any]],
  dialogue: Dialogue,
  encoder: Encoder,
  picture: Finding,
) -> Iterator[str]:
  """What the summary counts of a usable row."""
  yield from content.notes
  if picture.linked:
    yield summary.LINKED
  if any("loss" in turn for turn in conversations):
    yield summary.MASKED
  if dialogue.system is not None:
    yield summary.SYSTEM_USED if encoder.takes_system else f"{summary.UNREAD}system"
  for field in content.unread:
    yield f"{summary.UNREAD}{field}"
