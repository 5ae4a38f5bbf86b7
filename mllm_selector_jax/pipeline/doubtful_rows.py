"""Finds kept rows whose answer is doubtful, and says why in words.

Suspects are left out. A doubtful row stays in the selection, since the evidence against
it is weaker: most such rows are right (docs/results/selection.md, "Doubtful rows").
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.pipeline.candidates import Eligible
from mllm_selector_jax.pipeline.suspects import read_answer, read_rounds_of
from mllm_selector_jax.scoring.score_table import ScoreTable
from mllm_selector_jax.selection import second_look, skill
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.selection import Selection

OPPOSED = "the seed model is sure of another answer"
TWIN = "a row with the same question"
NEAR = "near rows answer"
SIGNALS = ("accuracy", "el2n")


class Standing(NamedTuple):
  """What is known about the answers of the eligible rows.

  Attributes:
    judged: whether the seed model knows the row's group and answer well enough for a
      high loss to be evidence; false if the bound does not tell.
    confirmed: whether a judged row has the answer that the seed model gives itself.
    doubt: for each row why it is doubtful, "" if it is not; only kept rows are.
  """

  judged: Bool[np.ndarray, " N"]
  confirmed: Bool[np.ndarray, " N"]
  doubt: np.ndarray


def judge_rows(eligible: Eligible, chosen: Selection, table: ScoreTable) -> Standing:
  """Judge the answers of the kept rows from the scores that are there.

  Nothing is judged if the bound does not say what the seed model knows, or if the
  score table lacks one of `SIGNALS`.

  Args:
    eligible: What the selection was made from.
    chosen: The selection.
    table: The score table.
  """
  count = len(eligible.rows)
  standing = Standing(
    np.zeros(count, bool), np.zeros(count, bool), np.full(count, "", object)
  )
  if chosen.judged is None or any(name not in table.columns for name in SIGNALS):
    return standing
  lines = np.searchsorted(table.row, eligible.rows)
  right = table.columns["accuracy"][lines] >= 1
  standing.judged[:] = chosen.judged
  standing.confirmed[:] = chosen.judged & right
  answers, groups = eligible.scores.answer, eligible.groups.index
  gives = skill.judge(right, groups, answers, np.ones(count, bool)).gives
  opposition = second_look.measure_opposition(
    table.columns["el2n"][lines],
    table.columns["supervised"][lines],
    eligible.pool.turns[eligible.rows],
  )
  knows = gives & second_look.find_reliable(opposition, right, groups)
  asked = np.flatnonzero(chosen.kept & ~right)
  near = _find_near(eligible, table, lines, asked)
  against = second_look.weigh(opposition[asked], knows[asked], near)
  standing.doubt[asked[against.model]] = OPPOSED
  if near is not None:
    _doubt_by_near(standing.doubt, eligible, asked, near, against)
  return standing


def _find_near(
  eligible: Eligible,
  table: ScoreTable,
  lines: Int[np.ndarray, " N"],
  asked: Int[np.ndarray, " n"],
) -> second_look.Near | None:
  """Compare rows with those of their groups; None without embeddings or answers."""
  answers = eligible.scores.answer
  if answers is None or not len(asked):
    return None
  groups = eligible.groups.index
  members = np.flatnonzero(np.isin(groups, np.unique(groups[asked])))
  vectors = table.read_embeddings(lines[members])
  if not vectors.shape[1]:
    return None
  near = second_look.find_near(
    UnitRows(vectors).rows(slice(None)),
    groups[members],
    answers[members],
    eligible.scores.key[members],
    np.searchsorted(members, asked),
  )

  def name(index: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return np.where(index >= 0, members[index], -1)

  return near._replace(example=name(near.example), twin=name(near.twin))


def _doubt_by_near(doubt, eligible, asked, near, against) -> None:
  """Write the doubts that follow from near rows into `doubt`, in place."""
  pool, rows = eligible.pool, eligible.rows
  for place in np.flatnonzero(against.near):
    answer = read_answer(pool, int(rows[near.example[place]]))
    doubt[asked[place]] = (
      f"{near.other[place]} of {near.compared[place]} {NEAR} {answer!r}"
    )
  for place in np.flatnonzero(near.twin >= 0):
    row, twin = int(rows[asked[place]]), int(rows[near.twin[place]])
    if _ask_the_same(pool, row, twin):
      image = " and image" if pool.has_image[row] else ""
      doubt[asked[place]] = f"{TWIN}{image} answers {read_answer(pool, twin)!r}"


def _ask_the_same(pool: PoolTable, row: int, other: int) -> bool:
  """Say whether two rows of one turn have the same question and the same images."""
  if pool.turns[row] != 1 or pool.turns[other] != 1:
    return False
  if list(pool.pixels[row]) != list(pool.pixels[other]):
    return False
  first, second = (read_rounds_of(pool, each)[0].question for each in (row, other))
  return first.strip() == second.strip()


def name_kind(doubt: str) -> str:
  """Return the kind of a doubt, which is its text without numbers and answers."""
  if NEAR in doubt:
    return "most near rows have one other answer"
  return f"{TWIN} has another answer" if doubt.startswith(TWIN) else doubt
