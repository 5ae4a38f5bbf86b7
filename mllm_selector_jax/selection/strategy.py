"""The definition of a strategy: a function that selects rows, and what it reads."""

import dataclasses
from collections.abc import Callable

from mllm_selector_jax.selection.selection import Selection


@dataclasses.dataclass(frozen=True)
class Strategy:
  """A strategy, and what it reads besides the necessity.

  Attributes:
    function: makes the selection, `(scores, groups, budget, rng, options) ->
      Selection`.
    takes: which rows it takes, in words, for the table in docs/method.md.
    source: where the strategy was published.
    signals: columns of the score table that it reads.
    embeddings: whether it reads embeddings.
    groups: whether its selection depends on the groups.
    bounded: whether it leaves suspect rows out; see `eligibility.sort_out`.
    settings: fields of `SelectOptions` that only this strategy reads.
  """

  function: Callable[..., Selection]
  takes: str
  source: str = ""
  signals: tuple[str, ...] = ()
  embeddings: bool = False
  groups: bool = False
  bounded: bool = False
  settings: tuple[str, ...] = ()
