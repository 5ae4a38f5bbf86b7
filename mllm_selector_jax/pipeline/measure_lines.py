"""Formats measures of diversity as text, for the console and the report."""

from collections.abc import Iterator
from typing import Any

RANDOM, POOL = "random", "the pool"  # names of sets that others are compared with
HEAD = (
  *("", "rows", "KL to target", "even groups", "coverage radius", "mean distance"),
  "near-duplicates",
)


def format_lines(measures: dict[str, Any]) -> list[str]:
  """Format the result of `measure_sets.measure_sets` as the lines of a table."""

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
    for line in measures["sets"]
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    f"measure: {measures['pool_rows']:,} scored rows in"
    f" {measures['group_count']:,} groups ({measures['groups']}), target"
    f" {measures['target']}"
  ]
  for first, *rest in rows:
    cells = [f"{cell:>{w}}" for cell, w in zip(rest, widths[1:], strict=True)]
    lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
  return lines + format_notes(measures)


def format_notes(measures: dict[str, Any]) -> list[str]:
  """List the notes that explain the figures: definitions, samples, rows left out."""
  if measures["missing"]:
    why = measures["missing"]["coverage_radius"]
    texts = [f"Distances and duplicates are not measured: {why}"]
  else:
    texts = [*_compare(measures), _explain(measures), *_list_samples(measures)]
  for line in measures["sets"]:
    name = line["name"]
    if line.get("repeated"):
      texts.append(f"{name}: entries that repeat a row: {line['repeated']:,}.")
    if line.get("unscored"):
      texts.append(
        f"{name}: rows that are left out because they have no score:"
        f" {line['unscored']:,}."
      )
    texts += [f"{name}: {note}" for note in line.get("notes", ())]
  return texts


def _explain(measures: dict[str, Any]) -> str:
  return (
    "KL to target: in nats. Even groups: the number of equally large groups that would"
    " be as diverse. Coverage radius and mean distance: the largest and the mean cosine"
    " distance of a pool row to its nearest kept row. Near-duplicates: the share of"
    " kept rows whose cosine with another kept row is above"
    f" {measures['duplicate_cosine']:.4g}"
    + (
      ", which is nearer than a twentieth of the mean distance of two rows of the pool."
      if measures.get("fitted")
      else " (select.duplicates)."
    )
  )


def _compare(measures: dict[str, Any]) -> Iterator[str]:
  """Say how each set differs from as many random rows."""
  by_rows = {
    line["rows"]: line
    for line in measures["sets"]
    if line["name"].startswith(f"{RANDOM},")
  }
  for line in measures["sets"]:
    drawn = by_rows.get(line["rows"])
    if drawn is None or drawn is line or line["name"] == POOL:
      continue
    yield (
      f"{line['name']}, beside as many random rows: the mean distance of a row of the"
      f" pool to its nearest kept row is {line['mean_distance']:.4f}, with random rows"
      f" {drawn['mean_distance']:.4f} (lower covers the pool better);"
      f" {line['duplicates']:.1%} of the kept rows are near-duplicates, of random rows"
      f" {drawn['duplicates']:.1%} (lower repeats less)."
    )


def _list_samples(measures: dict[str, Any]) -> Iterator[str]:
  """Describe the sample of rows where not all rows were compared."""
  for line in measures["sets"]:
    name, pool, kept = line["name"], measures["pool_rows"], line["rows"]
    if line["pool_rows_compared"] < pool:
      yield (
        f"{name}: distances are those of a sample of {line['pool_rows_compared']:,}"
        f" pool rows (seed {measures['seed']}), so the true radius is at"
        " least this large."
      )
    if line["kept_rows_compared"] < kept:
      yield (
        f"{name}: near-duplicates are those of a sample of"
        f" {line['kept_rows_compared']:,} kept rows (seed {measures['seed']})."
      )
