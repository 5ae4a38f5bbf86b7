"""What a strategy is: a function that selects, and what it reads."""

import dataclasses
from collections.abc import Callable

from mllm_selector_jax.selection.selection import Selection


@dataclasses.dataclass(frozen=True)
class Strategy:
  """A strategy and what it reads beside the necessity.

  Attributes:
    function: makes the selection, `(scores, groups, budget, rng, options) ->
      Selection`.
    takes: which rows it takes, for the table of docs/method.md.
    source: where it was published.
    signals: columns of the score table that it reads.
    embeddings: whether it compares embeddings.
    groups: whether it goes by the groups.
    bounded: whether it leaves suspect rows out, as `eligibility.sort_out` does.
    settings: parameters of a selection that it alone reads.
  """

  function: Callable[..., Selection]
  takes: str
  source: str = ""
  signals: tuple[str, ...] = ()
  embeddings: bool = False
  groups: bool = False
  bounded: bool = False
  settings: tuple[str, ...] = ()
