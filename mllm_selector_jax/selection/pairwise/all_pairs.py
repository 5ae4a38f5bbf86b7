"""Computes all cosines of a pool that is small enough to hold them."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int, Int32

from mllm_selector_jax.selection.pairwise import kernels
from mllm_selector_jax.selection.pairwise.row_tiles import Tiles, alone
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows


def compare_all(
  vectors: UnitRows,
  order: Int[np.ndarray, " n"],
  devices: Sequence[jax.Device] | None = None,
) -> Int32[np.ndarray, "n n"]:
  """Returns the cosine of each pair of rows in multiples of 2^-20.

  Args:
    vectors: the rows of the pool.
    order: the rows to compare.
    devices: the local devices that share the rows; by default all.
  """
  tiles = Tiles(vectors, order, devices=devices)
  result = np.empty((len(order), len(order)), np.int32)
  for i in range(len(tiles)):
    device, here = i % len(tiles.devices), tiles.span(i)
    with alone(tiles.devices[device]):
      row = [
        kernels.cosines(tiles.on(i, device).values, tiles.on(j, device).values)
        for j in range(len(tiles))
      ]
    cosines = np.concatenate(jax.device_get(row), 1)
    result[here] = cosines[: here.stop - here.start, : len(order)] * kernels.GRID
  return result
