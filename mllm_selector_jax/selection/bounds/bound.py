"""The definition of a bound: a rule that finds rows whose answer is probably wrong."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.heldout_loss import Doubt, Suspects
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.types import InputError

PREFIX = "suspect: "  # with which a bound's reason to leave a row out begins


class Inputs(NamedTuple):
  """What a bound may read about the eligible rows.

  Attributes:
    normalised_necessity: the ranks of the necessity, scaled to [0, 1]; 1 is the
      highest.
    groups: the group of each row, from 0.
    signals: the columns that the bound names, in their own units.
    seen: whether the seed model was tuned on the row.
    answers: a number that is the same for rows with the same answer; None if the
      answers are not known or the bound is not `by_skill`.
    doubt: the held-out loss, for a bound that needs one.
    embeddings: reads vectors of length 1 by the numbers of rows, for a bound that
      compares them; all of them may not fit in the memory.
    competence: the setting select.competence; 0 if it is off.
  """

  normalised_necessity: Float[np.ndarray, " N"]
  groups: Int[np.ndarray, " N"]
  signals: Mapping[str, Float[np.ndarray, " N"]]
  seen: Bool[np.ndarray, " N"]
  answers: UInt64[np.ndarray, " N"] | None = None
  doubt: Doubt | None = None
  embeddings: UnitRows | None = None
  competence: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bound:
  """A rule for suspect rows, and what it needs.

  Attributes:
    find: returns the suspects among the rows.
    words: which rows are suspect, in words, for the table in docs/method.md.
    reason: the reason of its rows in `selection.parquet`; begins with "suspect: ".
    meaning: an explanation of the reason, for reports.
    cost: what it costs in addition to the scoring, in words.
    signals: columns of the score table that it reads.
    finite: whether these have to be finite in all rows.
    embeddings: whether it reads embeddings.
    held_out: the name in `pipeline.heldout_models.MAKERS` of the function that makes
      the held-out loss that it reads; empty for none.
    by_skill: whether it needs the answers of the rows, to skip groups in which the
      model does not distinguish the answers, and answers that the model hardly ever
      gives (skill.py).
  """

  find: Callable[[Inputs], Suspects]
  words: str
  reason: str = ""
  meaning: str = "its answer may be wrong"
  cost: str = ""
  signals: tuple[str, ...] = ()
  finite: bool = True
  embeddings: bool = False
  held_out: str = ""
  by_skill: bool = False

  def __post_init__(self):
    if self.reason and not self.reason.startswith(PREFIX):
      raise InputError(
        f"A bound's reason is {self.reason!r}; it must begin with {PREFIX!r}."
      )
