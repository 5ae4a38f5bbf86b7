"""How far a model is from guessing: whether its mistakes mean anything.

A model that has learned only which answer is the commonest is right wherever that
answer stands and wrong everywhere else, so that its mistakes are the other answers,
not the wrong ones. Its accuracy therefore counts only above that of always giving one
answer, and an answer that it never gives is not held against a row.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

LEAST_SKILL = 0.25  # of a group in which the model knows the answers apart
LEAST_GIVEN = 0.2  # share of an answer's rows in which the model gives it
LEAST_ROWS = 8  # of the pool with an answer; a share of fewer says nothing
PRIOR = 0.1  # share of its rows by which a group is held for the whole pool


class Skill(NamedTuple):
  """What a model that gives some rows' answers knows.

  Attributes:
    apart: groups in which it tells the answers apart.
    gives: rows whose answer it gives often enough, or that is too rare to say.
  """

  apart: Bool[np.ndarray, " G"]
  gives: Bool[np.ndarray, " N"]


def judge(
  right: Bool[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"] | None,
  asked: Bool[np.ndarray, " N"],
) -> Skill:
  """Judges groups by `measure` and answers by their shares.

  Args:
    right: whether the model gives the row's answer.
    groups: from 0.
    answers: equal where the rows' answers are; None where they are not known, so
      that nothing is held against a model.
    asked: rows that count.
  """
  if answers is None:
    count = int(groups.max(initial=-1)) + 1
    return Skill(np.ones(count, bool), np.ones(len(groups), bool))
  skill, given, rows = measure(right, groups, answers, asked)
  return Skill(skill >= LEAST_SKILL, (given >= LEAST_GIVEN) | (rows < LEAST_ROWS))


def measure(
  right: Bool[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"],
  asked: Bool[np.ndarray, " N"],
) -> tuple[Float[np.ndarray, " G"], Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
  """The skill of each group, and how often each row's answer is given.

  A skill score, as forecasts have it: (accuracy - guess) / (1 - guess), with guess the
  accuracy of always giving the group's commonest answer. Each answer of a group counts
  with the square root of its rows there: by plain numbers of rows, a model that knows
  the answers of a group nine tenths of whose rows share one would look like one that
  does not. The commonest answer's rows count less one, so that guess is 0 where all
  answers differ, and skill is then the share of rows that are right.

  How often an answer is given is its share in the group, drawn towards its share in
  the whole pool as by `PRIOR` times the group's rows more. Clusters of embeddings
  gather the rows to which a model gives one answer: what it knows of the others is
  seen elsewhere, unless they are too many to be wrong.

  Args:
    right: whether the model gives the row's answer.
    groups: from 0.
    answers: equal where the rows' answers are.
    asked: rows that count.

  Returns:
    Skill by group, at most 1, below 0 for less than guessing, 0 without rows; of each
    row in which share of its answer's rows that answer is given; and how many rows of
    the pool have its answer.
  """
  count = int(groups.max(initial=-1)) + 1
  # Sorted by group and answer, so that no sum depends on the order of rows.
  order = np.argsort(answers)
  answer = np.cumsum(_starts(answers[order])) - 1
  kind = np.uint16 if count <= 1 << 16 else np.int64  # short ones are sorted faster
  regroup = np.argsort(groups[order].astype(kind), kind="stable")
  order, answer = order[regroup], answer[regroup]
  group, asked = groups[order], asked[order].astype(np.float64)
  hit = right[order] * asked
  rows = np.bincount(answer, asked)
  share = np.bincount(answer, hit) / np.maximum(rows, 1)
  starts = _starts(group) | _starts(answer)
  first, pair = np.flatnonzero(starts), np.cumsum(starts) - 1
  own, hits = np.bincount(pair, asked), np.bincount(pair, hit)
  prior = PRIOR * np.bincount(group, asked, count)[group[first]]
  prior = np.where(prior > 0, prior, 1)
  given = (hits + prior * share[answer[first]]) / (own + prior)
  weight, largest = np.sqrt(own), np.zeros(count)
  np.maximum.at(largest, group[first], own)
  guess = np.sqrt(np.maximum(largest - 1, 0))
  reached = np.bincount(group[first], weight * given, count) - guess
  most = np.bincount(group[first], weight, count) - guess
  skill = np.where(largest > 0, reached / np.where(largest > 0, most, 1), 0)
  given_of, rows_of = np.empty(len(order)), np.empty(len(order), np.int64)
  given_of[order], rows_of[order] = given[pair], rows[answer]
  return skill, given_of, rows_of


def _starts(values: np.ndarray) -> Bool[np.ndarray, " N"]:
  """Where a run of equal values begins."""
  starts = np.ones(len(values), bool)
  starts[1:] = values[1:] != values[:-1]
  return starts
