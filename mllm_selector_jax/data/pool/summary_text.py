"""Writes the summary of a pool for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from mllm_selector_jax.data.pool import special_counts
from mllm_selector_jax.data.pool.pool_summary import EXAMPLES, PERCENTILES
from mllm_selector_jax.data.pool.remedies import REMEDIES
from mllm_selector_jax.types import REASONS

ASIDE_SHARE = 0.01  # of the rows, above which the last lines say what would keep them
_MOST_SOURCES = 20  # lines of the text


def format_summary(found: Mapping[str, Any]) -> str:
  """Returns the summary as text for the console."""
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
  if framed := found.get("with_frames"):
    lines.append(f"videos       {framed:,} rows have frames of a video as images")
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
  """Explains why many rows were set aside, and what would keep them.

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
  """Returns the message for a pool of which no row can be used."""
  lines = [
    f"{', '.join(map(str, data))}: none of the {found['rows']:,} rows can be used.",
    *_format_aside(found["aside"]),
  ]
  lines += [f"  {reason}: {REMEDIES[reason]}" for reason in found["aside"]]
  return "\n".join(lines)


def _format_remarks(found: Mapping[str, Any]) -> list[str]:
  """Lists what was read differently from what one may expect, or not at all."""
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
    marks = [values["percentiles"].get(str(p), 0) for p in PERCENTILES]
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
  if total and images["tiles"] != total:
    lines.append(
      f"tiles        {images['tiles']:,} of {total:,} images,"
      f" {images['tokens'] / total:,.0f} tokens an image"
    )
  lines += [
    f"limited      model.{limit} makes {saved['images']:,} uses of images smaller,"
    f" which saves {saved['tokens']:,} tokens"
    for limit, saved in images["saved"].items()
  ]
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
  """Aligns the first column to the left, and the others to the right."""
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
  """Returns printable text, so that no row can move a terminal's cursor."""
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
