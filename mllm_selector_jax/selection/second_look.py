"""Evidence against the answers of rows that a bound did not judge.

Where a model does not know a group, a high loss is no evidence of a wrong answer. Two
other observations are: the model is sure of another answer all the same, and the rows
nearest to the row agree on another answer.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

NEIGHBOURS = 8
_SAME = 1 - 1e-5  # a cosine from which embeddings are the same but for rounding
LEAST_OTHER = 5  # near rows that have to agree on one other answer
MOST_SAME = 1  # near rows with the row's answer, if only the model is against it
UNSURE = 0.9  # an opposition from which the model inclines to another answer
SURE = 1.0  # an opposition from which it is sure of one
_GRID = 2.0**20  # cosines are rounded to its inverse
_STEP = 1 << 10  # rows that are compared with their group at a time


class Near(NamedTuple):
  """What the nearest rows of some rows answer; one entry for each of them.

  Attributes:
    compared: the number of nearest rows, `NEIGHBOURS` at most.
    same: how many of them have the same answer as the row.
    other: how many have the commonest of their other answers.
    example: the index of a row with that answer; -1 if there is none.
    twin: the index of the nearest row with another answer if its embedding is the
      same, as it is for the same question about the same image; -1 if there is none.
  """

  compared: Int[np.ndarray, " n"]
  same: Int[np.ndarray, " n"]
  other: Int[np.ndarray, " n"]
  example: Int[np.ndarray, " n"]
  twin: Int[np.ndarray, " n"]


def measure_opposition(
  el2n: Float[np.ndarray, " N"],
  supervised: Int[np.ndarray, " N"],
  turns: Int[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
  """Measures how sure the model is of another answer than the row's.

  The error norm |softmax - onehot| of a token is near 1 if the model does not know
  what comes, since it then spreads its probability, and near 2^.5 if it is sure of
  another token. The token that ends a turn follows from those before it and has an
  error near 0, so that it does not count.

  Args:
    el2n: the mean error norm over the supervised tokens (Paul et al. 2021,
      arXiv:2107.07075).
    supervised: the number of supervised tokens.
    turns: the number of turns.

  Returns:
    The mean over the tokens of the answers, from 0 to 2^.5.
  """
  counted = np.maximum(supervised - turns, 1)
  return np.minimum(el2n * supervised / counted, np.sqrt(2.0))


def find_near(
  embeddings: Float[np.ndarray, "N D"],
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"],
  key: UInt64[np.ndarray, " N"],
  asked: Int[np.ndarray, " n"],
) -> Near:
  """Finds what the rows nearest to each row answer.

  Near rows are those of the highest cosine in the same group, without copies of the
  row. Among rows of equal similarity, the one with the smallest key comes first.

  Args:
    embeddings: vectors of length 1.
    groups: the group of each row, from 0.
    answers: a number that is the same for rows with the same answer.
    key: the beginning of each row's content hash.
    asked: the rows to compare, ascending.
  """
  result = Near(*(np.zeros(len(asked), np.int64) for _ in Near._fields))
  result.example[:] = result.twin[:] = -1
  by_group = np.lexsort((key, groups))
  starts = np.searchsorted(groups[by_group], np.arange(groups.max(initial=-1) + 2))
  for group in np.unique(groups[asked]):
    members = by_group[starts[group] : starts[group + 1]]
    places = np.flatnonzero(groups[asked] == group)
    for start in range(0, len(places), _STEP):
      part = places[start : start + _STEP]
      _compare(result, part, asked[part], members, embeddings, answers, key)
  return result


def _compare(result: Near, places, rows, members, embeddings, answers, key) -> None:
  """Writes what the nearest members of a group answer into `result`, in place."""
  cosine = embeddings[rows] @ embeddings[members].T
  # The last bits of a product depend on the processor.
  cosine = np.rint(cosine * _GRID)
  cosine[key[rows][:, None] == key[members]] = -np.inf
  # Members are sorted by key, so a stable sort breaks ties by it.
  order = np.argsort(-cosine, axis=1, kind="stable")[:, :NEIGHBOURS]
  for place, row, nearest, values in zip(places, rows, order, cosine, strict=True):
    near = members[nearest[np.isfinite(values[nearest])]]
    same = answers[near] == answers[row]
    result.compared[place], result.same[place] = len(near), same.sum()
    if not same.all():
      others = near[~same]
      _, first, counts = np.unique(
        answers[others], return_index=True, return_counts=True
      )
      # Of answers that occur equally often, that of the nearest row counts.
      best = np.lexsort((first, -counts))[0]
      result.other[place] = counts[best]
      result.example[place] = others[first[best]]
      if values[nearest][: len(near)][~same][0] >= _SAME * _GRID:
        result.twin[place] = others[0]


class Against(NamedTuple):
  """What speaks against the answers of some rows; one entry for each of them.

  Attributes:
    near: most near rows have one other answer, to which the model inclines too.
    model: the model is sure of another answer.
  """

  near: Bool[np.ndarray, " n"]
  model: Bool[np.ndarray, " n"]


def weigh(
  opposition: Float[np.ndarray, " n"], gives: Bool[np.ndarray, " n"], near: Near | None
) -> Against:
  """Decides whether what the model and the near rows say is evidence.

  Args:
    opposition: from `measure_opposition`.
    gives: whether the model gives the row's answer often enough to know it, from
      `skill.judge`.
    near: from `find_near`; None if nothing is known of near rows.
  """
  opposed = (opposition > SURE) & gives
  if near is None:
    return Against(np.zeros(len(opposition), bool), opposed)
  contradicted = (near.same == 0) & (near.other >= LEAST_OTHER)
  return Against(
    contradicted & (opposition > UNSURE), opposed & (near.same <= MOST_SAME)
  )
