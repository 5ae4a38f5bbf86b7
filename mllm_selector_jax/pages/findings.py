"""What the page says in figures: shares, counts and the comparison of two arms."""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.data.pool import special_counts
from mllm_selector_jax.pages.gather import Pool, Selection
from mllm_selector_jax.pages.tables import Labels
from mllm_selector_jax.selection.reasons import MEANINGS
from mllm_selector_jax.types import REASONS

ASIDE = "set aside: "  # how the reason of a row that was never scored begins
SUSPECT = "suspect"  # how the reason of a row that is probably wrong begins
BOUND = "bound"  # what the reason of a row beyond its group's bound speaks of


def pool_facts(pool: Pool) -> list[tuple[str, str]]:
  """What the pool holds, in figures: labels and values."""
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
    facts.append(("rounds a row, mean and most", f"{turns.mean():.2f}, {turns.max()}"))
  if len(tokens) and tokens.max() > 0:
    middle = f"{np.median(tokens):,.0f}, {tokens.max():,}"
    facts.append(("tokens a row, median and most", middle))
    facts.append(("cut to the longest allowed", f"{int(pool.truncated.sum()):,}"))
  return facts + special_counts.list_lines(pool.summary.get("specials") or {})


def source_lines(pool: Pool, selection: Selection | None) -> list[dict[str, Any]]:
  """Rows, set-aside rows and shares of each source, the largest first.

  The share in the pool is that of the rows that were not set aside.
  """
  whole, aside = pool.source.counts(), pool.source.counts(pool.aside)
  kept = {} if selection is None else pool.source.counts(selection.kept)
  eligible, chosen = sum(whole.values()) - sum(aside.values()), sum(kept.values())
  return [
    {
      "name": name,
      "rows": count,
      "aside": aside.get(name, 0),
      "kept": kept.get(name, 0),
      "pool": (count - aside.get(name, 0)) / max(eligible, 1),
      "share": kept.get(name, 0) / chosen if chosen else None,
    }
    for name, count in whole.items()
  ]


def group_lines(pool: Pool, selection: Selection) -> list[dict[str, Any]]:
  """Size, shares, main source, necessity and suspects of each group, by size."""
  grouped = selection.group >= 0
  if not grouped.any():
    return []
  groups, codes = np.unique(selection.group[grouped], return_inverse=True)
  kept = selection.kept[grouped]
  size = np.bincount(codes)
  sources = _main_sources(pool.source, grouped, codes)
  chosen = np.bincount(codes, kept.astype(np.float64))
  told = {
    line["group"]: line
    for line in selection.summary.get("groups") or []
    if "group" in line
  }
  lines = []
  for place, group in enumerate(map(int, groups)):
    line = told.get(group, {})
    lines.append(
      {
        "group": group,
        "label": group_label(
          group, line.get("name") or selection.group_names.get(group)
        ),
        "size": int(size[place]),
        "mostly": sources[place],
        "kept": int(chosen[place]),
        "pool": float(size[place] / size.sum()),
        "target": line.get("target_share"),
        "share": float(chosen[place] / max(chosen.sum(), 1)),
        "necessity": line.get("mean_necessity"),
        "floor": line.get("floor"),
        "suspects": line.get("suspects"),
      }
    )
  return sorted(lines, key=lambda line: (-line["size"], line["group"]))


def _main_sources(
  source: Labels, grouped: Bool[np.ndarray, " N"], codes: Int[np.ndarray, " K"]
) -> list[tuple[str, float] | None]:
  """The most frequent source of each group and its share, None without sources."""
  if not source.names:
    return [None] * (int(codes.max()) + 1)
  pairs, counts = np.unique(
    np.stack([codes, source.codes[grouped]]), axis=1, return_counts=True
  )
  found: list[tuple[str, float] | None] = []
  for group in range(int(codes.max()) + 1):
    here = np.flatnonzero(pairs[0] == group)
    best = here[np.argmax(counts[here])]
    code = int(pairs[1, best])
    name = source.names[code] if code >= 0 else "no source"
    found.append((name, float(counts[best] / counts[here].sum())))
  return found


def group_label(group: int, name: str | None) -> str:
  """The group's number and name; a name that has the number in it says both."""
  if not name:
    return str(group)
  return name if str(group) in name.split() else f"{group}: {name}"


def reason_lines(selection: Selection) -> list[dict[str, Any]]:
  """How many rows were kept or not for each reason, kept ones first."""
  meanings, lines = selection.summary.get("meanings") or {}, []  # of plug-ins
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
  """How many rows were set aside for each reason, and what the reason means."""
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
  """Rows left out because they lie beyond a bound of their group."""
  return _speaks_of(selection.reason, SUSPECT) & ~selection.kept


def _speaks_of(labels: Labels, word: str) -> Bool[np.ndarray, " N"]:
  found = [word in name.lower() for name in labels.names]
  return np.asarray([*found, False])[labels.codes]  # -1 looks up the last


def upper_bounds(selection: Selection) -> Float[np.ndarray, " G"]:
  """The least necessity beyond each group's upper bound, where a group has any."""
  where = is_suspect(selection) & _speaks_of(selection.reason, BOUND)
  where &= np.isfinite(selection.necessity) & (selection.group >= 0)
  if not where.any():
    return np.zeros(0)
  _, codes = np.unique(selection.group[where], return_inverse=True)
  bounds = np.full(codes.max() + 1, np.inf)
  np.minimum.at(bounds, codes, selection.necessity[where])
  return bounds


def threshold_of(selection: Selection) -> float | None:
  """The least gain that was enough: the summary's, or the rows' where all agree."""
  told = selection.summary.get("threshold")
  if isinstance(told, int | float) and math.isfinite(told):
    return float(told)
  found = np.unique(selection.threshold[np.isfinite(selection.threshold)])
  return float(found[0]) if len(found) == 1 else None


def lengths(pool: Pool) -> dict[str, Int[np.ndarray, " K"]]:
  """Lengths in tokens of the rows that can be used, with and without an image."""
  usable = ~pool.aside & (pool.tokens > 0)
  return {
    "with an image": pool.tokens[usable & pool.has_image],
    "text only": pool.tokens[usable & ~pool.has_image],
  }
