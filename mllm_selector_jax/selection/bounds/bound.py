"""What a bound is: a rule that finds the rows of a group that are probably wrong."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.heldout_loss import Doubt, Suspects
from mllm_selector_jax.types import InputError

PREFIX = "suspect: "  # of the reason for which a bound leaves a row out


class Inputs(NamedTuple):
  """What a bound may read of the eligible rows.

  Attributes:
    necessity: rank-normalised, 1 for the highest.
    groups: from 0.
    signals: the columns that the bound names, in their own units.
    seen: the seed model was tuned on the row.
    answers: equal where the rows' answers are. None where they are not known, and for
      a bound that does not go by skill.
    doubt: the held-out loss, for a bound that needs one.
    embeddings: of length 1, for a bound that compares them.
    competence: the setting select.competence; 0 where it is off.
  """

  necessity: Float[np.ndarray, " N"]
  groups: Int[np.ndarray, " N"]
  signals: Mapping[str, Float[np.ndarray, " N"]]
  seen: Bool[np.ndarray, " N"]
  answers: UInt64[np.ndarray, " N"] | None = None
  doubt: Doubt | None = None
  embeddings: Float[np.ndarray, "N D"] | None = None
  competence: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bound:
  """A rule for suspect rows, and what it needs.

  Attributes:
    find: finds the suspects among the rows.
    words: which rows are suspect, for the table of docs/method.md.
    reason: of its rows in `selection.parquet`; begins with "suspect: ".
    meaning: what the reason means, for reports.
    cost: what it takes beside the scoring, in words.
    signals: columns of the score table that it reads.
    finite: whether they have to be finite in all rows.
    embeddings: whether it compares embeddings.
    held_out: the held-out loss that it reads, by the name of its maker in
      `pipeline.heldout_models.MAKERS`; empty for none.
    by_skill: whether what a model does not know turns it off: groups whose answers
      the model does not tell apart, and answers that it hardly ever gives (skill.py).
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
