"""Measures of diversity in words, for the console and the report."""

from collections.abc import Iterator
from typing import Any

HEAD = (
  *("", "rows", "KL to target", "even groups", "coverage radius", "mean distance"),
  "near-duplicates",
)


def format_lines(found: dict[str, Any]) -> list[str]:
  """The table for people, a text a line."""

  def number(value, form):
    return "-" if value is None else format(value, form)

  rows = [HEAD] + [
    (
      line["name"],
      f"{line['rows']:,}",
      number(line["divergence"], ".4f"),
      number(line["effective_groups"], ".1f"),
      number(line["coverage_radius"], ".4f"),
      number(line["mean_distance"], ".4f"),
      number(line["duplicates"], ".2%"),
    )
    for line in found["sets"]
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    f"measure: {found['pool_rows']:,} scored rows in {found['group_count']:,} groups"
    f" ({found['groups']}), target {found['target']}"
  ]
  for first, *rest in rows:
    cells = [f"{cell:>{w}}" for cell, w in zip(rest, widths[1:], strict=True)]
    lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
  return lines + format_notes(found)


def format_notes(found: dict[str, Any]) -> list[str]:
  """What must be said beside the figures."""
  if found["missing"]:
    why = found["missing"]["coverage_radius"]
    texts = [f"Without distances and duplicates: {why}"]
  else:
    texts = [_explain(found), *_list_samples(found)]
  for line in found["sets"]:
    name = line["name"]
    if line.get("repeated"):
      texts.append(f"{name}: entries that name rows again: {line['repeated']:,}.")
    if line.get("unscored"):
      texts.append(
        f"{name}: rows that were not scored, and are left out: {line['unscored']:,}."
      )
    texts += [f"{name}: {note}" for note in line.get("notes", ())]
  return texts


def _explain(found: dict[str, Any]) -> str:
  return (
    "KL to target in nats; even groups: how many groups of equal shares are as diverse."
    " Coverage radius and mean distance: the largest and the mean cosine distance of a"
    " pool row to its nearest kept row. Near-duplicates: kept rows with another kept"
    f" row above a cosine of {found['duplicate_cosine']:g}."
  )


def _list_samples(found: dict[str, Any]) -> Iterator[str]:
  """Of which rows the figures are where not all were compared."""
  for line in found["sets"]:
    name, pool, kept = line["name"], found["pool_rows"], line["rows"]
    if line["pool_rows_compared"] < pool:
      yield (
        f"{name}: distances are of {line['pool_rows_compared']:,} pool rows drawn by"
        f" the seed {found['seed']}, so the radius is at least this."
      )
    if line["kept_rows_compared"] < kept:
      yield (
        f"{name}: duplicates are of {line['kept_rows_compared']:,} kept rows drawn by"
        f" the seed {found['seed']}."
      )
