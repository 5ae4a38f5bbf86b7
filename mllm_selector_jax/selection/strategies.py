"""The strategies by name: `(scores, groups, budget, rng, options) -> Selection`."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.selection import baselines
from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.kl import kl
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget
from mllm_selector_jax.selection.rivals import by_signal
from mllm_selector_jax.selection.rivals.coincide import coincide
from mllm_selector_jax.selection.rivals.d2 import d2
from mllm_selector_jax.selection.rivals.deita import deita
from mllm_selector_jax.selection.rivals.facility_location import facility_location
from mllm_selector_jax.selection.rivals.k_center import k_center
from mllm_selector_jax.selection.rivals.semdedup import semdedup
from mllm_selector_jax.selection.selection import Selection


@dataclasses.dataclass(frozen=True)
class Strategy:
  """A strategy and what it reads beside necessity and groups.

  Attributes:
    function: makes the selection.
    signals: columns of the score table.
    embeddings: whether it compares embeddings.
  """

  function: Callable[..., Selection]
  signals: tuple[str, ...] = ()
  embeddings: bool = False


STRATEGIES: dict[str, Strategy] = {
  "kl": Strategy(kl),
  "grouped": Strategy(baselines.grouped),
  "random": Strategy(baselines.random),
  "stratified": Strategy(baselines.stratified),
  "top": Strategy(baselines.top),
  "middle": Strategy(baselines.middle),
  "perplexity": Strategy(by_signal.perplexity, ("perplexity",)),
  "el2n": Strategy(by_signal.el2n, ("el2n",)),
  "grand": Strategy(by_signal.grand, ("grand",)),
  "ifd": Strategy(by_signal.ifd, ("ifd",)),
  "visnec": Strategy(by_signal.visnec, ("visual",), embeddings=True),
  "d2": Strategy(d2, embeddings=True),
  "semdedup": Strategy(semdedup, embeddings=True),
  "k_center": Strategy(k_center, embeddings=True),
  "facility_location": Strategy(facility_location, embeddings=True),
  "coincide": Strategy(coincide, embeddings=True),
  "deita": Strategy(deita, embeddings=True),
}


def select(
  scores: Scores,
  groups: Groups | Int[np.ndarray, " N"],
  budget: Budget,
  rng: int = 0,
  options: SelectOptions | None = None,
) -> Selection:
  """Selects by the strategy that the options name.

  Args:
    scores: the eligible rows; rows set aside do not come in.
    groups: of the same rows; plain numbers from 0 are named after themselves.
    budget: rows, a share of the rows not left out, or training tokens.
    rng: seed of every draw.
    options: `kl` with its defaults if not given.

  Raises:
    InputError: see `eligibility.sort_out`, `eligibility.fit` and `budget`; or the
      strategy needs a signal or embeddings that the scores do not hold.
  """
  options = options or SelectOptions()
  if not isinstance(groups, Groups):
    index = np.asarray(groups)
    names = map(str, range(int(index.max(initial=-1)) + 1))
    groups = Groups(index, tuple(names))
  function = STRATEGIES[options.strategy].function
  return function(scores, groups, budget, rng, options)
