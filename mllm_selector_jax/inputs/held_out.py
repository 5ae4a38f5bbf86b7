"""Which rows of the pool are held out to compare settings on, and never selected."""

from typing import Any

import numpy as np
from jaxtyping import Bool, UInt64

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.selection import budget, draws
from mllm_selector_jax.types import InputError

OPTION = "select.search.development"


def read_share(cfg: Any) -> float:
  """The share of the pool that is held out; 0 without a search or with files.

  Raises:
    InputError: as `parse`.
  """
  own = cfg.select.search
  return parse(own.development)[0] if own.candidates else 0.0


def read_files(cfg: Any) -> list[str]:
  """The development question files, none where a share is held out."""
  return parse(cfg.select.search.development)[1]


def parse(value: Any) -> tuple[float, list[str]]:
  """The share that `select.search.development` holds out, or its question files.

  Raises:
    InputError: it is neither a share below 100 % nor files.
  """
  files = base_model.split_paths(value) if isinstance(value, str | tuple | list) else []
  if files and not (len(files) == 1 and budget.is_budget(files[0])):
    return 0.0, files
  found = budget.parse(files[0] if files else value, OPTION)
  if found.kind != "percent" or found.amount >= 100:
    raise InputError(
      f'{OPTION} is {value!r}; it is a share of the pool, as "10%", or question files.'
    )
  return float(found.amount / 100), []


def hold_out(
  key: UInt64[np.ndarray, " N"], share: float, rng: int
) -> Bool[np.ndarray, " N"]:
  """Which rows are held out: a draw by content, so copies share their lot."""
  return draws.draw(rng, key, "development") < np.uint64(int(share * (2**64 - 1)))
