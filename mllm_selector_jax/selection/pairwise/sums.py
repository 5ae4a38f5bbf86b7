"""Sums of Gaussian kernels over the pairs of rows of a group."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise import kernels
from mllm_selector_jax.selection.pairwise.row_tiles import Tiles, fold, gather
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows


def sum_gaussians(
  vectors: UnitRows,
  order: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " n"],
  devices: Sequence[jax.Device] | None = None,
  overseer: Overseer = NOBODY,
) -> Float[np.ndarray, " n"]:
  """Sums exp(-|x - y|^2 / 2) for each row x over all rows y of its group, x included.

  Each term is rounded to a multiple of 2^-20, so that sums are exact in any order.

  Args:
    vectors: the rows of the pool, of length 1.
    order: the rows to compare, sorted by group.
    groups: the group of each row of the order, ascending.
    devices: the local devices that share the rows; by default all.
    overseer: watches the comparisons and keeps their sums.
  """
  tiles = Tiles(vectors, order, groups=groups, devices=devices)
  start = _zeros(tiles.size)
  keeper = overseer.keep("sums", vectors, order, groups)
  with overseer.watch("density of groups", "pair") as progress:
    among = tiles.with_groups_of
    states = fold(kernels.gaussian_sums, start, tiles, tiles, among, progress, keeper)
  return _join(gather(start, tiles, states))


def _zeros(size: int) -> kernels.Sums:
  zeros: Any = np.zeros(size, np.int32)
  return kernels.Sums(zeros, zeros)


def _join(sums: kernels.Sums) -> Float[np.ndarray, " n"]:
  high = np.asarray(sums.high).astype(np.int64)
  return ((high << kernels.LIMB) + np.asarray(sums.low)) / kernels.GRID
