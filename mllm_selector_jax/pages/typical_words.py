"""Names groups of texts by the words that are most typical of each."""

import collections
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

MOST_LETTERS = 24  # of a word; longer runs of letters are no words
_WORD = re.compile(r"[^\W\d_]{2,}")


def find_typical(
  texts: Sequence[str], groups: Int[np.ndarray, " n"], number: int = 4
) -> dict[int, list[str]]:
  """Find the words whose share of rows is most surely higher in a group than elsewhere.

  A word counts once in a row. Words are ranked by the log-odds ratio between the group
  and all other rows, divided by its standard error (Monroe, Colaresi and Quinn 2008,
  "Fightin' Words", with half a row added to each count).

  Args:
    texts: The text of each row.
    groups: The group of each row; negative for none.
    number: Words of a group, at most.

  Returns:
    The words of each group, the most typical first; none where no word is more frequent
    than elsewhere.
  """
  counts: dict[int, collections.Counter[str]] = collections.defaultdict(
    collections.Counter
  )
  sizes: collections.Counter[int] = collections.Counter()
  for text, group in zip(texts, groups.tolist(), strict=True):
    if group >= 0:
      counts[group].update(read_words(text))
      sizes[group] += 1
  totals: collections.Counter[str] = collections.Counter()
  for words in counts.values():
    totals.update(words)
  rows = sum(sizes.values())
  return {
    group: _rank(counts[group], totals, size, rows)[:number]
    for group, size in sorted(sizes.items())
  }


def read_words(text: str) -> set[str]:
  """Return the different words of a text, in lower case."""
  words = _WORD.findall(text.lower())
  return {word for word in words if len(word) <= MOST_LETTERS}


def _rank(
  words: collections.Counter[str],
  totals: collections.Counter[str],
  size: int,
  rows: int,
) -> list[str]:
  names = sorted(words)
  inside = np.array([words[name] for name in names], np.float64)
  outside = np.array([totals[name] for name in names], np.float64) - inside
  score = _log_odds(inside, outside, size, rows - size)
  order = np.argsort(-score, kind="stable")
  return [names[place] for place in order if score[place] > 0]


def _log_odds(
  inside: Float[np.ndarray, " W"],
  outside: Float[np.ndarray, " W"],
  size: int,
  other_size: int,
) -> Float[np.ndarray, " W"]:
  """Return the log-odds ratio of each word, divided by its standard error."""
  cells = np.stack([inside, size - inside, outside, other_size - outside]) + 0.5
  odds = np.log(cells[0] / cells[1]) - np.log(cells[2] / cells[3])
  return odds / np.sqrt((1 / cells).sum(0))
