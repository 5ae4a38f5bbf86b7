"""Picks the rows that the page shows, and orders them.

The first are rows of high necessity whose answers the seed model confirms, so that what
a reader sees first is no wrong answer. Doubtful rows have a part of their own.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.pages import findings
from mllm_selector_jax.pages.gather import Pool, Selection

MOST_CARDS = 500


@dataclasses.dataclass(frozen=True)
class Pick:
  """Rows of one kind; `words` says what they are."""

  name: str
  words: str
  rows: Int[np.ndarray, " K"]


def pick_rows(pool: Pool, selection: Selection | None) -> list[Pick]:
  """Choose the rows to show; the same artifacts give the same rows."""
  picks = []
  if selection is not None:
    picks += _pick_selected(selection)
  picks.append(
    Pick(
      "Set aside by the check",
      "Up to four rows for each reason; they were not scored.",
      _pick_unusable(pool, 4),
    )
  )
  picks = [pick for pick in picks if len(pick.rows)]
  assert sum(len(pick.rows) for pick in picks) <= MOST_CARDS
  return picks


def _pick_selected(selection: Selection) -> list[Pick]:
  kept, suspect = selection.kept, findings.is_suspect(selection)
  doubtful = findings.is_doubtful(selection)
  counts = findings.count_doubts(selection)
  kinds = "; ".join(f"{kind} ({rows:,})" for kind, rows in counts.items())
  gain, threshold = selection.gain, findings.threshold_of(selection)
  has_gain = np.isfinite(gain)
  picks = [
    _pick_examples(selection),
    Pick("Kept, at random", "A sample of the selection.", shuffled(kept)[:24]),
    Pick(
      "Kept, but doubtful",
      f"{doubtful.sum():,} of {kept.sum():,} kept rows. What speaks against their"
      f" answers is too weak to leave them out: {kinds}.",
      shuffled(doubtful)[:24],
    ),
  ]
  if has_gain.any() and threshold is not None:
    words = f"the threshold is a gain of {threshold:.4g}"
    far = shuffled(~kept & has_gain & ~suspect)
    near = [_nearest(where, gain, threshold)[:4] for where in (kept, ~kept & ~suspect)]
    picks += [
      Pick(
        "Near the threshold",
        f"The last rows that were taken and the first that were not; {words}.",
        np.concatenate(near),
      ),
      Pick("Below the threshold, at random", f"Not taken; {words}.", far[:16]),
    ]
  else:
    passed = shuffled(~kept & ~suspect & (selection.group >= 0))
    picks.append(Pick("Not taken, at random", "Not in the selection.", passed[:16]))
  picks.append(
    Pick(
      "Suspect, left out",
      "Rows that the selection's bounds take for wrong: wrong answers, images that do"
      " not fit the text, and some rows that are only hard.",
      shuffled(suspect)[:24],
    )
  )
  return picks


def _pick_examples(selection: Selection) -> Pick:
  """Pick kept rows of high necessity, those whose answers are confirmed first."""
  kept = selection.kept & (selection.rank >= 0)
  if not selection.judged.any():
    ranked = np.flatnonzero(kept)
    ranked = ranked[np.argsort(selection.rank[ranked], kind="stable")]
    return Pick("Kept, ranked first", "The rows with the best ranks.", ranked[:12])
  rows = np.flatnonzero(kept & ~findings.is_doubtful(selection))
  order = np.lexsort(
    (
      selection.rank[rows],
      -np.nan_to_num(selection.necessity[rows], nan=-1.0),
      ~selection.judged[rows],
      ~selection.confirmed[rows],
    )
  )
  rows = rows[order]
  # No group shows a second row before all others have shown one.
  rows = rows[np.argsort(_count_earlier(selection.group[rows]), kind="stable")]
  return Pick(
    "Kept, with the highest necessity",
    "The rows of the highest necessity in each group, first those whose answers the"
    " seed model gives itself in groups that it knows.",
    rows[:12],
  )


def _count_earlier(values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
  """Count for each value how many equal ones come before it."""
  order = np.argsort(values, kind="stable")
  ordered = values[order]
  starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
  sizes = np.diff(np.r_[starts, len(values)])
  counts = np.empty(len(values), np.int64)
  counts[order] = np.arange(len(values)) - np.repeat(starts, sizes)
  return counts


def shuffled(where: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " K"]:
  """Return the marked rows in a pseudo-random order that depends only on numbers."""
  rows = np.flatnonzero(where)
  return rows[np.argsort(mix(rows), kind="stable")]


def mix(rows: Int[np.ndarray, " K"]) -> UInt64[np.ndarray, " K"]:
  """Return a pseudo-random number for each row number."""
  mixed = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
  mixed ^= mixed >> np.uint64(29)
  return mixed * np.uint64(0xBF58476D1CE4E5B9)


def _nearest(
  where: Bool[np.ndarray, " N"], gain: Float[np.ndarray, " N"], threshold: float
) -> Int[np.ndarray, " K"]:
  rows = np.flatnonzero(where & np.isfinite(gain))
  return rows[np.argsort(np.abs(gain[rows] - threshold), kind="stable")]


def _pick_unusable(pool: Pool, per_reason: int) -> Int[np.ndarray, " K"]:
  """Pick one row for every reason, then a second for every reason, and so on."""
  candidates = []
  for line in findings.aside_lines(pool):
    code = pool.reason.names.index(line["reason"])
    rows = np.flatnonzero(pool.reason.codes == code)[:per_reason]
    candidates += [(turn, len(candidates), int(row)) for turn, row in enumerate(rows)]
  return np.array([row for _, _, row in sorted(candidates)][:64], np.int64)
