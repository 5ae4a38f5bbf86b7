"""What a pool holds: counted row by row, and written for people."""

import array
import collections
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllm_selector_jax.data.pool import special_counts
from mllm_selector_jax.data.pool.pool_table import Line
from mllm_selector_jax.data.pool.remedies import REMEDIES
from mllm_selector_jax.data.tokens.specials import Count
from mllm_selector_jax.types import REASONS

EXAMPLES = 5  # rows shown of each reason
ASIDE_SHARE = 0.01  # of the rows, above which the last lines say what would keep them

# What is counted of usable rows, see `check`; `UNREAD` is followed by a field's name.
LINKED = "images reached by a symbolic link"
MASKED = "answers that the record itself masks, not learned"
SYSTEM_USED = "a system text of the row's own, used"
UNREAD = "not read: "
_MOST_REMARKS = 100  # kinds that are counted apart
_OTHER = f"{UNREAD}further fields"
_MOST_DETAIL = 200  # characters
_MOST_SOURCES = 20  # lines of the text
_PERCENTILES = (5, 25, 50, 75, 95, 99)


class Tally:
  """Counts lines as they come, in little memory.

  Attributes:
    rows: counted so far.
    ok: those that can be used.
  """

  def __init__(self):
    self.rows = 0
    self.ok = 0
    self._aside: collections.Counter[str] = collections.Counter()
    self._examples: dict[str, list[dict[str, Any]]] = {}
    self._sources: dict[str, list[int]] = {}
    self._text_only = 0
    self._truncated = 0
    self._turns = array.array("q")
    self._tokens = array.array("q")
    self._supervised = array.array("q")
    self._uses: collections.Counter[str] = collections.Counter()
    self._bytes = 0
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
    digest = hashlib.blake2b(line.id.encode("utf-8", "replace"), digest_size=8)
    self._ids.append(int.from_bytes(digest.digest()))
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
    self._turns.append(line.turns)
    self._tokens.append(line.tokens)
    self._supervised.append(line.supervised)
    self._text_only += not line.images
    self._images[len(line.images)] += 1
    self._tiles += line.tiles
    self._image_tokens += line.image_tokens
    hashes = dict(zip(line.image_hashes, image_bytes, strict=True))
    for digest, size in hashes.items():
      if digest not in self._uses:
        self._bytes += size
      self._uses[digest] += 1

  def result(self) -> dict[str, Any]:
    """All counts, as JSON can have them; the same for the same pool.

    All but "rows", "distinct_ids", "aside" and "sources" are of the rows that can
    be used.
    """
    order = sorted(self._aside, key=lambda reason: (-self._aside[reason], reason))
    sources = sorted(self._sources.items(), key=lambda item: (-item[1][0], item[0]))
    turns = np.asarray(self._turns)
    values, counts = np.unique(turns, return_counts=True)
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
        **_describe(turns),
        "histogram": {
          str(value): count
          for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        },
      },
      "tokens": _describe(np.asarray(self._tokens)),
      "supervised": _describe(np.asarray(self._supervised)),
      "images": {
        "distinct": len(self._uses),
        "rows": self.ok - self._text_only,
        "uses": self._uses.total(),
        "shared_uses": sum(count for count in self._uses.values() if count > 1),
        "bytes": self._bytes,
        "a_row": {str(count): self._images[count] for count in sorted(self._images)},
        "tiles": self._tiles,
        "tokens": self._image_tokens,
      },
    }

  def _find_duplicates(self) -> dict[str, Any]:
    """Rows whose content an earlier row has, and the first of them."""
    keys, rows = np.asarray(self._contents), np.asarray(self._rows)
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[of] != np.arange(len(keys)))
    examples = [
      {"row": int(rows[place]), "same_as": int(rows[first[of[place]]])}
      for place in again[:EXAMPLES]
    ]
    return {"rows": len(again), "examples": examples}


def _describe(values: np.ndarray) -> dict[str, Any]:
  if not len(values):
    return {"total": 0, "least": 0, "mean": 0.0, "most": 0, "percentiles": {}}
  # Of the sorted values one is taken, none is interpolated: lengths are whole.
  marks = np.percentile(values, _PERCENTILES, method="inverted_cdf")
  return {
    "total": int(values.sum()),
    "least": int(values.min()),
    "mean": round(float(values.mean()), 3),
    "most": int(values.max()),
    "percentiles": {
      str(mark): int(value) for mark, value in zip(_PERCENTILES, marks, strict=True)
    },
  }


def format_summary(found: Mapping[str, Any]) -> str:
  """The summary as text, for the console."""
  rows, ok = found["rows"], found["ok"]
  images, tokens = found["images"], found["tokens"]
  lines = [
    f"{rows:,} rows = {ok:,} usable + {rows - ok:,} set aside",
    "",
    *_format_sources(found["sources"], rows),
    "",
    f"images       {images['distinct']:,} distinct ({_format_bytes(images['bytes'])})"
    f" in {images['rows']:,} rows; {images['shared_uses']:,} of {images['uses']:,} uses"
    " share one",
    *_format_several(images),
    f"text only    {_share(found['text_only'], ok)}",
    f"tokens       {tokens['total']:,} in all, {found['supervised']['total']:,}"
    " supervised",
    f"cut off      {_share(found['truncated'], ok)} longer than allowed",
    "",
    *_format_lengths(found),
  ]
  lines += _format_remarks(found)
  if left := found.get("not_taken"):
    lines.append(
      f"not taken    {sum(left.values()):,} rows, by the mixture's strategies"
    )
  if left := found.get("left_out_files"):
    lines.append(_format_left(left))
  if found["aside"]:
    lines += ["", *_format_aside(found["aside"])]
  if verdict := explain_aside(found):
    lines += ["", *verdict]
  return "\n".join(lines)


def explain_aside(found: Mapping[str, Any]) -> list[str]:
  """What a large part of the rows was set aside for, and what would keep them.

  Returns:
    No line where at most `ASIDE_SHARE` of the rows and no whole source are set aside.
  """
  rows, aside = found["rows"], found["rows"] - found["ok"]
  whole = [name for name, n in found["sources"].items() if not n["ok"]]
  if aside <= ASIDE_SHARE * rows and not whole:
    return []
  lines = [f"Look: {_share(aside, rows)} are set aside."]
  if whole:
    shown = ", ".join(_one_line(name, 30) for name in whole[:EXAMPLES])
    more = f" and {len(whole) - EXAMPLES:,} more" if len(whole) > EXAMPLES else ""
    lines.append(f"  No row is left of: {shown}{more}")
  for reason, count in found["aside"].items():
    lines.append(f"  {reason}, {count['rows']:,} rows: {REMEDIES[reason]}")
  return lines


def explain_nothing(data: Sequence[str], found: Mapping[str, Any]) -> str:
  """The message for a pool of which no row can be used."""
  lines = [
    f"{', '.join(map(str, data))}: none of the {found['rows']:,} rows can be used.",
    *_format_aside(found["aside"]),
  ]
  lines += [f"  {reason}: {REMEDIES[reason]}" for reason in found["aside"]]
  return "\n".join(lines)


def _format_remarks(found: Mapping[str, Any]) -> list[str]:
  """What was read otherwise than one may think, or not at all."""
  lines = []
  if repeated := found["rows"] - found["distinct_ids"]:
    lines.append(
      f"ids          {_share(repeated, found['rows'])} have an id that an earlier row"
      " has; a row is known by its number and its content"
    )
  if again := found["duplicates"]["rows"]:
    shown = ", ".join(
      f"row {each['row']:,} is row {each['same_as']:,}"
      for each in found["duplicates"]["examples"]
    )
    lines.append(
      f"duplicates   {_share(again, found['ok'])} hold the conversation and image of an"
      f" earlier row: {shown}{', ...' if again > EXAMPLES else ''};"
      " --config.pool.duplicate_rows=aside leaves them out"
    )
  for label, counts in special_counts.list_lines(found["specials"]):
    lines.append(f"specials     {label}: {counts}; see model.content_specials")
  lines += [
    f"noted        {count:,} rows: {_one_line(remark, 80)}"
    for remark, count in found["remarks"].items()
  ]
  return ["", *lines] if lines else []


def _format_sources(sources: Mapping[str, Mapping[str, int]], rows: int) -> list[str]:
  shown = list(sources.items())[:_MOST_SOURCES]
  rest = list(sources.items())[_MOST_SOURCES:]
  if rest:
    total = {key: sum(count[key] for _, count in rest) for key in ("rows", "ok")}
    shown.append((f"{len(rest):,} more", total))
  return _align(
    [("source", "rows", "share", "usable")]
    + [
      (_one_line(name, 30), f"{n['rows']:,}", _percent(n["rows"], rows), f"{n['ok']:,}")
      for name, n in shown
    ]
  )


def _format_lengths(found: Mapping[str, Any]) -> list[str]:
  head = ("a row has", "least", "5 %", "25 %", "median", "75 %", "95 %", "99 %", "most")
  lines: list[tuple[str, ...]] = [head]
  for name, label in (
    ("turns", "turns"), ("tokens", "tokens"), ("supervised", "supervised tokens")
  ):  # fmt: skip
    values = found[name]
    marks = [values["percentiles"].get(str(p), 0) for p in _PERCENTILES]
    counts = (values["least"], *marks, values["most"])
    lines.append((label, *(f"{count:,}" for count in counts)))
  return _align(lines)


def _format_several(images: Mapping[str, Any]) -> list[str]:
  """The lines that tell of rows of several images, and of images of several tiles."""
  lines = []
  several = {n: rows for n, rows in images["a_row"].items() if int(n) > 1}
  if several:
    shown = ", ".join(f"{n}: {rows:,}" for n, rows in list(several.items())[:EXAMPLES])
    more = ", ..." if len(several) > EXAMPLES else ""
    lines.append(
      f"several      {sum(several.values()):,} rows have more than one image"
      f" ({shown}{more})"
    )
  total = sum(int(n) * rows for n, rows in images["a_row"].items())
  if images["tiles"] != total:
    lines.append(
      f"tiles        {images['tiles']:,} of {total:,} images,"
      f" {images['tokens'] / total:,.0f} tokens an image"
    )
  return lines


def _format_left(left: Mapping[str, Any]) -> str:
  """The line for files of the folders given that are no part of the pool."""
  count = left["count"]
  # With its folder: data-00000-of-00001.arrow alone says nothing.
  names = [_one_line("/".join(name.split("/")[-2:]), 60) for name in left["first"]]
  more = f" and {count - len(names):,} more" if count > len(names) else ""
  return (
    f"left out     {count:,} {'file' if count == 1 else 'files'} of the folders given"
    f" ({', '.join(names)}{more}); pool.splits takes other splits"
  )


def _format_aside(aside: Mapping[str, Mapping[str, Any]]) -> list[str]:
  lines = _align(
    [("set aside", "rows")] + [(name, f"{n['rows']:,}") for name, n in aside.items()]
  )
  out = lines[:1]
  for line, (reason, count) in zip(lines[1:], aside.items(), strict=True):
    out.append(f"{line}   {REASONS[reason]}")
    for example in count["examples"]:
      detail = f": {_one_line(example['detail'], 200)}" if example["detail"] else ""
      name = _one_line(example["id"], 30)
      out.append(f"    row {example['row']:,} ({name}){detail}")
    more = count["rows"] - len(count["examples"])
    if more:
      out.append(f"    and {more:,} more")
  return out


def _align(table: Sequence[Sequence[str]]) -> list[str]:
  """The first column to the left, the others to the right."""
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  return [
    "  ".join(
      [
        row[0].ljust(widths[0]),
        *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
      ]
    )
    for row in table
  ]


def _one_line(text: str, most: int) -> str:
  """Printable text: what a row holds must not move a terminal's cursor."""
  text = "".join(c if c.isprintable() else " " for c in text)
  return text if len(text) <= most else text[: most - 1] + "…"


def _share(count: int, of: int) -> str:
  return f"{count:,} rows ({_percent(count, of)})"


def _percent(count: int, of: int) -> str:
  return f"{100 * count / of:.1f} %" if of else "0.0 %"


def _format_bytes(size: int) -> str:
  count: float = size
  for unit in ("bytes", "kB", "MB", "GB"):
    if count < 1000:
      return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
    count /= 1000
  return f"{count:.1f} TB"
