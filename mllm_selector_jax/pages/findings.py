"""Computes the figures of the page: counts, shares, bounds and thresholds."""

import collections
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.data.pool import special_counts
from mllm_selector_jax.pages.gather import Pool, Selection
from mllm_selector_jax.pages.tables import Labels
from mllm_selector_jax.pipeline import doubtful_rows
from mllm_selector_jax.selection.reasons import MEANINGS
from mllm_selector_jax.types import REASONS

ASIDE = "set aside: "  # prefix of the reason of a row that was set aside
SUSPECT = "suspect"  # in the reason of a row that is probably wrong
BOUND = "bound"  # in the reason of a row beyond the bound of its group


def pool_facts(pool: Pool) -> list[tuple[str, str]]:
  """Return figures about the pool, as pairs of a label and a value."""
  usable = ~pool.aside
  tokens, turns = pool.tokens[usable], pool.turns[usable]
  with_image = int(pool.has_image[usable].sum())
  facts = [
    ("rows", f"{pool.rows:,}"),
    ("usable", f"{int(usable.sum()):,}"),
    ("set aside", f"{int(pool.aside.sum()):,}"),
    ("sources", f"{len(pool.source.counts()):,}"),
    ("with an image", f"{with_image:,}"),
    ("text only", f"{int(usable.sum()) - with_image:,}"),
    ("different image files", f"{pool.images:,}"),
  ]
  if len(turns) and turns.max() > 0:
    facts.append(
      ("rounds per row, mean and maximum", f"{turns.mean():.2f}, {turns.max()}")
    )
  if len(tokens) and tokens.max() > 0:
    middle = f"{np.median(tokens):,.0f}, {tokens.max():,}"
    facts.append(("tokens per row, median and maximum", middle))
    facts.append(("truncated to the maximum length", f"{int(pool.truncated.sum()):,}"))
  return facts + special_counts.list_lines(pool.summary.get("specials") or {})


def source_lines(pool: Pool, selection: Selection | None) -> list[dict[str, Any]]:
  """Return counts and shares of each source, the largest source first.

  Shares of the pool are computed without the rows that were set aside.
  """
  counts, unusable_counts = pool.source.counts(), pool.source.counts(pool.aside)
  kept = {} if selection is None else pool.source.counts(selection.kept)
  eligible, chosen = (
    sum(counts.values()) - sum(unusable_counts.values()),
    sum(kept.values()),
  )
  return [
    {
      "name": name,
      "rows": count,
      "aside": unusable_counts.get(name, 0),
      "kept": kept.get(name, 0),
      "pool": (count - unusable_counts.get(name, 0)) / max(eligible, 1),
      "share": kept.get(name, 0) / chosen if chosen else None,
    }
    for name, count in counts.items()
  ]


def group_lines(pool: Pool, selection: Selection) -> list[dict[str, Any]]:
  """Return size, shares, main source, necessity and suspects of each group, by size."""
  grouped = selection.group >= 0
  if not grouped.any():
    return []
  groups, codes = np.unique(selection.group[grouped], return_inverse=True)
  kept = selection.kept[grouped]
  size = np.bincount(codes)
  sources = _main_sources(pool.source, grouped, codes)
  chosen = np.bincount(codes, kept.astype(np.float64))
  summary_lines = {
    line["group"]: line
    for line in selection.summary.get("groups") or []
    if "group" in line
  }
  lines = []
  for index, group in enumerate(map(int, groups)):
    line = summary_lines.get(group, {})
    lines.append(
      {
        "group": group,
        "label": group_label(
          group, line.get("name") or selection.group_names.get(group)
        ),
        "size": int(size[index]),
        "mostly": sources[index],
        "kept": int(chosen[index]),
        "pool": float(size[index] / size.sum()),
        "target": line.get("target_share"),
        "share": float(chosen[index] / max(chosen.sum(), 1)),
        "necessity": line.get("mean_necessity"),
        "floor": line.get("floor"),
        "suspects": line.get("suspects"),
      }
    )
  return sorted(lines, key=lambda line: (-line["size"], line["group"]))


def _main_sources(
  source: Labels, grouped: Bool[np.ndarray, " N"], codes: Int[np.ndarray, " K"]
) -> list[tuple[str, float] | None]:
  """Return the most frequent source of each group and its share.

  All are None if the pool has no sources.
  """
  if not source.names:
    return [None] * (int(codes.max()) + 1)
  pairs, counts = np.unique(
    np.stack([codes, source.codes[grouped]]), axis=1, return_counts=True
  )
  main_sources: list[tuple[str, float] | None] = []
  for group in range(int(codes.max()) + 1):
    group_pairs = np.flatnonzero(pairs[0] == group)
    best = group_pairs[np.argmax(counts[group_pairs])]
    code = int(pairs[1, best])
    name = source.names[code] if code >= 0 else "no source"
    main_sources.append((name, float(counts[best] / counts[group_pairs].sum())))
  return main_sources


def group_label(group: int, name: str | None) -> str:
  """Return a label with a group's number and name; the number is not repeated."""
  if not name:
    return str(group)
  return name if str(group) in name.split() else f"{group}: {name}"


def reason_lines(selection: Selection) -> list[dict[str, Any]]:
  """Count the rows that were kept or not for each reason, kept rows first."""
  meanings, lines = selection.summary.get("meanings") or {}, []  # meanings of plug-ins
  for kept in (True, False):
    where = selection.kept == kept
    counts = selection.reason.counts(where)
    unsaid = int(where.sum()) - sum(counts.values())
    if unsaid:
      counts["no reason given"] = unsaid
    lines += [
      {
        "kept": kept,
        "reason": reason,
        "rows": n,
        "share": n / max(len(where), 1),
        "meaning": MEANINGS.get(reason)
        or REASONS.get(reason.removeprefix(ASIDE))
        or meanings.get(reason, ""),
      }
      for reason, n in counts.items()
    ]
  return lines


def aside_lines(pool: Pool) -> list[dict[str, Any]]:
  """Count the rows that were set aside for each reason, with the reason's meaning."""
  return [
    {
      "reason": reason,
      "rows": rows,
      "share": rows / max(pool.rows, 1),
      "meaning": REASONS.get(reason, ""),
      "example": int(np.argmax(pool.reason.codes == pool.reason.names.index(reason))),
    }
    for reason, rows in pool.reason.counts().items()
  ]


def is_suspect(selection: Selection) -> Bool[np.ndarray, " N"]:
  """Mark the rows that were left out as suspect."""
  return _has_word(selection.reason, SUSPECT) & ~selection.kept


def is_doubtful(selection: Selection) -> Bool[np.ndarray, " N"]:
  """Mark the kept rows whose answers are doubtful."""
  return selection.kept & (selection.doubt.codes >= 0)


def describe_knowledge(selection: Selection, row: int) -> str:
  """Say what the seed model knows of a row."""
  if not selection.judged[row]:
    return "does not know its group"
  return f"gives {'this' if selection.confirmed[row] else 'another'} answer"


def count_doubts(selection: Selection) -> dict[str, int]:
  """Count the doubtful rows of each kind of doubt, the commonest first."""
  counts: collections.Counter[str] = collections.Counter()
  for doubt, rows in selection.doubt.counts(is_doubtful(selection)).items():
    counts[doubtful_rows.name_kind(doubt)] += rows
  return dict(counts.most_common())


def _has_word(labels: Labels, word: str) -> Bool[np.ndarray, " N"]:
  matches = [word in name.lower() for name in labels.names]
  return np.asarray([*matches, False])[
    labels.codes
  ]  # the code -1 looks up the last entry


def upper_bounds(selection: Selection) -> Float[np.ndarray, " G"]:
  """Return the lowest necessity beyond the upper bound, for each group that has any."""
  where = is_suspect(selection) & _has_word(selection.reason, BOUND)
  where &= np.isfinite(selection.necessity) & (selection.group >= 0)
  if not where.any():
    return np.zeros(0)
  _, codes = np.unique(selection.group[where], return_inverse=True)
  bounds = np.full(codes.max() + 1, np.inf)
  np.minimum.at(bounds, codes, selection.necessity[where])
  return bounds


def threshold_of(selection: Selection) -> float | None:
  """Return the lowest gain of a kept row.

  It is read from the summary, or from the rows if they all have the same threshold.
  """
  summary_threshold = selection.summary.get("threshold")
  if isinstance(summary_threshold, int | float) and math.isfinite(summary_threshold):
    return float(summary_threshold)
  thresholds = np.unique(selection.threshold[np.isfinite(selection.threshold)])
  return float(thresholds[0]) if len(thresholds) == 1 else None


def lengths(pool: Pool) -> dict[str, Int[np.ndarray, " K"]]:
  """Return the lengths in tokens of the usable rows, with and without an image."""
  usable = ~pool.aside & (pool.tokens > 0)
  return {
    "with an image": pool.tokens[usable & pool.has_image],
    "text only": pool.tokens[usable & ~pool.has_image],
  }
