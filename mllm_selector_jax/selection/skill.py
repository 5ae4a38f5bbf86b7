"""Measures how much better than guessing a model is, and so what its errors mean.

A model that has learned only which answer is the commonest is right on all rows with
that answer and wrong on all others, so its errors do not tell which answers are wrong.
Accuracy is therefore measured against always giving the commonest answer, and a row is
not suspect if its answer is one that the model hardly ever gives.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

LEAST_SKILL = 0.25  # the skill from which a model distinguishes a group's answers
LEAST_GIVEN = 0.2  # the share of an answer's rows for which the model has to give it
LEAST_ROWS = 8  # rows of the pool with an answer; a share of fewer is not meaningful
PRIOR = 0.1  # the weight of the pool's share, relative to the rows of the group


class Skill(NamedTuple):
  """Where the errors of a model are evidence.

  Attributes:
    apart: for each group, whether the model distinguishes its answers.
    gives: for each row, whether the model gives its answer often enough, or the answer
      is too rare to tell.
  """

  apart: Bool[np.ndarray, " G"]
  gives: Bool[np.ndarray, " N"]


def judge(
  right: Bool[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"] | None,
  asked: Bool[np.ndarray, " N"],
) -> Skill:
  """Decides in which groups and for which answers the errors of a model are evidence.

  Args:
    right: whether the model gives the row's answer.
    groups: the group of each row, from 0.
    answers: a number that is the same for rows with the same answer. If the answers
      are not known (None), all errors are evidence.
    asked: rows that are counted.
  """
  if answers is None:
    count = int(groups.max(initial=-1)) + 1
    return Skill(np.ones(count, bool), np.ones(len(groups), bool))
  skill, given_share, rows = measure(right, groups, answers, asked)
  gives = (given_share >= LEAST_GIVEN) | (rows < LEAST_ROWS)
  return Skill(skill >= LEAST_SKILL, gives)


def measure(
  right: Bool[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"],
  asked: Bool[np.ndarray, " N"],
) -> tuple[Float[np.ndarray, " G"], Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
  """Measures the skill in each group, and how often each row's answer is given.

  Skill is a skill score as in forecast verification, (accuracy - guess) / (1 - guess),
  where guess is the accuracy of always giving the group's commonest answer. Each answer
  is weighted by the square root of its number of rows in the group. Weighted by the
  number itself, a model that knows all answers would score little above a guessing one
  in a group in which nine tenths of the rows have the same answer. The commonest answer
  counts with one row less, so that guess is 0 if all answers differ; skill is then the
  share of rows that are right.

  The share of an answer's rows for which it is given is that in the group, smoothed
  towards that in the whole pool, as by `PRIOR` times the group's number of rows.
  Clusters of embeddings gather rows for which a model gives the same answer, so that
  what it knows of other answers shows only elsewhere. If a group has many rows with an
  answer, they outweigh the pool.

  Args:
    right: whether the model gives the row's answer.
    groups: the group of each row, from 0.
    answers: a number that is the same for rows with the same answer.
    asked: rows that are counted.

  Returns:
    The skill in each group: at most 1, below 0 if worse than guessing, 0 without rows.
    For each row, the share of its answer's rows for which the model gives that answer.
    For each row, the number of rows of the pool with its answer.
  """
  count = int(groups.max(initial=-1)) + 1
  # Rows are sorted by group and answer, so that no sum depends on their order.
  order = np.argsort(answers)
  answer = np.cumsum(_starts(answers[order])) - 1
  kind = np.uint16 if count <= 1 << 16 else np.int64  # short integers are sorted faster
  regroup = np.argsort(groups[order].astype(kind), kind="stable")
  order, answer = order[regroup], answer[regroup]
  group, asked = groups[order], asked[order].astype(np.float64)
  hit = right[order] * asked
  rows = np.bincount(answer, asked)
  share = np.bincount(answer, hit) / np.maximum(rows, 1)
  starts = _starts(group) | _starts(answer)
  first, pair = np.flatnonzero(starts), np.cumsum(starts) - 1
  pair_rows, pair_hits = np.bincount(pair, asked), np.bincount(pair, hit)
  prior = PRIOR * np.bincount(group, asked, count)[group[first]]
  prior = np.where(prior > 0, prior, 1)
  given_share = (pair_hits + prior * share[answer[first]]) / (pair_rows + prior)
  weight, largest = np.sqrt(pair_rows), np.zeros(count)
  np.maximum.at(largest, group[first], pair_rows)
  guess = np.sqrt(np.maximum(largest - 1, 0))
  reached = np.bincount(group[first], weight * given_share, count) - guess
  attainable = np.bincount(group[first], weight, count) - guess
  skill = np.where(largest > 0, reached / np.where(largest > 0, attainable, 1), 0)
  row_given, answer_rows = np.empty(len(order)), np.empty(len(order), np.int64)
  row_given[order], answer_rows[order] = given_share[pair], rows[answer]
  return skill, row_given, answer_rows


def _starts(values: np.ndarray) -> Bool[np.ndarray, " N"]:
  """Marks the first of each run of equal values."""
  starts = np.ones(len(values), bool)
  starts[1:] = values[1:] != values[:-1]
  return starts
