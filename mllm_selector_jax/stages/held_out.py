"""Which rows of the pool are held out to compare settings on, and never selected."""

from typing import Any

import numpy as np
from jaxtyping import Bool, UInt64

from mllm_selector_jax.selection import budget, draws
from mllm_selector_jax.stages import base
from mllm_selector_jax.types import InputError

OPTION = "select.search.development"


def read_share(cfg: Any) -> float:
  """The share of the pool that is held out; 0 without a search or with files.

  Raises:
    InputError: the option is neither a share below 100 % nor files.
  """
  own = cfg.select.search
  if not own.candidates or read_files(cfg):
    return 0.0
  found = budget.parse(own.development, OPTION)
  if found.kind != "percent" or found.amount >= 100:
    raise InputError(
      f'{OPTION} is {own.development!r}; it is a share of the pool, as "10%", or'
      " question files."
    )
  return float(found.amount / 100)


def read_files(cfg: Any) -> list[str]:
  """The development question files, none where a share is held out."""
  given = cfg.select.search.development
  if given is None or isinstance(given, int | float):
    return []
  files = base.split_paths(given)
  return [] if len(files) == 1 and budget.is_budget(files[0]) else files


def hold_out(
  key: UInt64[np.ndarray, " N"], share: float, rng: int
) -> Bool[np.ndarray, " N"]:
  """Which rows are held out: a draw by content, so copies share their lot."""
  return draws.draw(rng, key, "development") < np.uint64(int(share * (2**64 - 1)))
