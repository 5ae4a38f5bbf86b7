"""Holds out pool rows on which a search compares settings; they are never selected."""

from typing import Any

import numpy as np
from jaxtyping import Bool, UInt64

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.selection import budget, draws
from mllm_selector_jax.types import InputError

OPTION = "select.search.development"


def read_share(cfg: Any) -> float:
  """Return the share of the pool that is held out.

  It is 0 if there is no search, or if the search uses question files.

  Raises:
    InputError: See `parse`.
  """
  search = cfg.select.search
  return parse(search.development)[0] if search.candidates else 0.0


def read_files(cfg: Any) -> list[str]:
  """Return the development question files; empty if a share is held out instead."""
  return parse(cfg.select.search.development)[1]


def parse(value: Any) -> tuple[float, list[str]]:
  """Parse `select.search.development`.

  Returns:
    The share of the pool to hold out, and the question files; one of them is empty.

  Raises:
    InputError: The value is neither a share below 100 % nor a list of files.
  """
  files = base_model.split_paths(value) if isinstance(value, str | tuple | list) else []
  if files and not (len(files) == 1 and budget.is_budget(files[0])):
    return 0.0, files
  amount = budget.parse(files[0] if files else value, OPTION)
  if amount.kind != "percent" or amount.amount >= 100:
    raise InputError(
      f'{OPTION} is {value!r}; it is a share of the pool, such as "10%", or question'
      " files."
    )
  return float(amount.amount / 100), []


def hold_out(
  key: UInt64[np.ndarray, " N"], share: float, rng: int
) -> Bool[np.ndarray, " N"]:
  """Mark the rows that are held out.

  The draw depends on the content of a row only, so that copies are held out together.

  Args:
    key: The rows' content keys, from `clusters.read_keys`.
    share: The share to hold out, between 0 and 1.
    rng: Seed of the draw.
  """
  return draws.draw(rng, key, "development") < np.uint64(int(share * (2**64 - 1)))
