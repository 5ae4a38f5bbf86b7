"""Evidence against the answers of rows that a bound did not judge.

Where a model does not know a group, a high loss is no evidence of a wrong answer. Two
other observations are: the model is sure of another answer all the same, and the rows
nearest to the row agree on another answer.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.pairwise.blocks import make_blocks

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


def find_reliable(
  opposition: Float[np.ndarray, " N"],
  right: Bool[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
) -> Bool[np.ndarray, " N"]:
  """Marks the rows of groups in which the model's being sure is evidence.

  These are groups of which it gets at least as many rows right as it is sure of another
  answer. A model that was tuned on few rows is often sure of an answer that it gives
  everywhere; of these rows hardly any is wrong.

  Args:
    opposition: from `measure_opposition`.
    right: whether the model gives the row's answer itself.
    groups: the group of each row, from 0.
  """
  count = int(groups.max(initial=-1)) + 1
  hits = np.bincount(groups[right], minlength=count)
  against = np.bincount(groups[(opposition > SURE) & ~right], minlength=count)
  return (hits >= against)[groups]


def find_near(
  embeddings: Float[np.ndarray, "N D"],
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"],
  key: UInt64[np.ndarray, " N"],
  asked: Int[np.ndarray, " n"],
) -> Near:
  """Finds what the rows nearest to each row answer.

  Near rows are those of the highest cosine in the same group, without copies of the
  row. Among rows of equal similarity, the one with the smallest key comes first. A
  group of more than `blocks.BLOCK_ROWS` rows is cut into blocks, and rows of
  different blocks are not compared.

  Args:
    embeddings: vectors of length 1.
    groups: the group of each row, from 0.
    answers: a number that is the same for rows with the same answer.
    key: the beginning of each row's content hash.
    asked: the rows to compare, ascending.
  """
  result = Near(*(np.zeros(len(asked), np.int64) for _ in Near._fields))
  place = np.full(len(key), -1)
  place[asked] = np.arange(len(asked))
  for block in make_blocks(np.arange(len(key)), groups, key):
    wanted = block[place[block] >= 0]
    for start in range(0, len(wanted), _STEP):
      rows = wanted[start : start + _STEP]
      found = _compare(rows, block, embeddings, answers, key)
      for column, values in zip(result, found, strict=True):
        column[place[rows]] = values
  return result


def _compare(rows, members, embeddings, answers, key) -> Near:
  """Finds what the nearest of some members of a group answer."""
  # The last bits of a product depend on the processor.
  cosine = np.rint(embeddings[rows] @ embeddings[members].T * _GRID)
  cosine[key[rows][:, None] == key[members]] = -np.inf
  # Members are sorted by key, so their places break ties by it; sums are exact.
  far = np.arange(len(members)) - cosine.astype(np.float64) * len(members)
  last = min(NEIGHBOURS, len(members)) - 1
  order = np.argpartition(far, last, axis=1)[:, : last + 1]
  sorting = np.argsort(np.take_along_axis(far, order, 1), axis=1, kind="stable")
  order = np.take_along_axis(order, sorting, 1)
  cosine = np.take_along_axis(cosine, order, 1)
  near, compared = members[order], np.isfinite(cosine)
  same = compared & (answers[near] == answers[rows][:, None])
  other = compared & ~same
  alike = answers[near][:, :, None] == answers[near][:, None, :]
  votes = np.where(other, (alike & other[:, None]).sum(2), 0)
  # Of answers that occur equally often, that of the nearest row counts.
  line, best, first = np.arange(len(rows)), votes.argmax(1), other.argmax(1)
  is_twin = other[line, first] & (cosine[line, first] >= _SAME * _GRID)
  return Near(
    compared.sum(1),
    same.sum(1),
    votes[line, best],
    np.where(other.any(1), near[line, best], -1),
    np.where(is_twin, near[line, first], -1),
  )


class Against(NamedTuple):
  """What speaks against the answers of some rows; one entry for each of them.

  Attributes:
    near: most near rows have one other answer, to which the model inclines too.
    model: the model is sure of another answer.
  """

  near: Bool[np.ndarray, " n"]
  model: Bool[np.ndarray, " n"]


def weigh(
  opposition: Float[np.ndarray, " n"],
  knows: Bool[np.ndarray, " n"],
  near: Near | None,
) -> Against:
  """Decides whether what the model and the near rows say is evidence.

  Args:
    opposition: from `measure_opposition`.
    knows: whether the model gives the row's answer often enough to know it, by
      `skill.judge`, and is reliable in its group, by `find_reliable`.
    near: from `find_near`; None if nothing is known of near rows.
  """
  opposed = (opposition > SURE) & knows
  if near is None:
    return Against(np.zeros(len(opposition), bool), opposed)
  contradicted = (near.same == 0) & (near.other >= LEAST_OTHER)
  return Against(
    contradicted & (opposition > UNSURE), opposed & (near.same <= MOST_SAME)
  )
