"""Jitted functions that compare a tile of rows with another one."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

GRID = 2.0**20  # cosines are rounded to multiples of its inverse
FULL = jax.lax.Precision.HIGHEST  # near-ties would depend on errors of bf16 or TF32
LIMB = 30  # bits of the lower part of a sum, so that it and one more tile fit in int32


class Tile(NamedTuple):
  """Rows on a device, the last of which may be padding.

  Attributes:
    values: vectors of length 1, or 0 for padding.
    mark: a number for each row, by which it is known; -1 for padding.
    group: the group of each row.
  """

  values: Float[Array, "T D"]
  mark: Int[Array, " T"]
  group: Int[Array, " T"]


class Sums(NamedTuple):
  """Sums of integers beyond 32 bits: high * 2^30 + low."""

  high: Int[Array, " T"]
  low: Int[Array, " T"]


class Nearest(NamedTuple):
  """The most similar rows, the most similar first, and -1 and -inf for none."""

  cosine: Float[Array, "T k"]
  mark: Int[Array, "T k"]


def no_neighbours(rows: int, count: int) -> Nearest:
  """Returns what a search for the `count` nearest of some rows starts from."""
  cosine: Any = np.full((rows, count), -np.inf, np.float32)
  mark: Any = np.full((rows, count), -1, np.int32)
  return Nearest(cosine, mark)


@jax.jit
def cosines(
  left: Float[Array, "T D"], right: Float[Array, "U D"]
) -> Float[Array, "T U"]:
  """Returns the cosines of all pairs, rounded to multiples of 2^-20."""
  return jnp.rint(jnp.dot(left, right.T, precision=FULL) * GRID) * (1 / GRID)


def all_rows(left: Tile, right: Tile) -> Bool[Array, "T U"]:
  """Compares each row with all of the other tile."""
  return jnp.broadcast_to((right.mark >= 0)[None, :], (len(left.mark), len(right.mark)))


def other_rows(left: Tile, right: Tile) -> Bool[Array, "T U"]:
  """Compares each row with all of the other tile but itself."""
  return all_rows(left, right) & (left.mark[:, None] != right.mark[None, :])


def own_group(left: Tile, right: Tile) -> Bool[Array, "T U"]:
  """Compares each row with those of its group, itself included."""
  return all_rows(left, right) & (left.group[:, None] == right.group[None, :])


def others_of_group(left: Tile, right: Tile) -> Bool[Array, "T U"]:
  """Compares each row with those of its group that have another mark."""
  return own_group(left, right) & (left.mark[:, None] != right.mark[None, :])


def earlier_rows(left: Tile, right: Tile) -> Bool[Array, "T U"]:
  """Compares each row with those of its group that have a smaller mark."""
  return own_group(left, right) & (left.mark[:, None] > right.mark[None, :])


@functools.partial(jax.jit, static_argnames="mask")
def highest(
  best: Float[Array, " T"], left: Tile, right: Tile, mask=all_rows
) -> Float[Array, " T"]:
  """Returns the maximum of `best` and the cosines with the rows that are compared.

  Args:
    best: the highest cosine so far; -inf if there is none.
    left: the rows.
    right: the rows that they are compared with.
    mask: says which pairs are compared, such as `all_rows`.
  """
  found = jnp.where(mask(left, right), cosines(left.values, right.values), -jnp.inf)
  return jnp.maximum(best, found.max(1))


@functools.partial(jax.jit, static_argnames="mask")
def nearest(best: Nearest, left: Tile, right: Tile, mask=other_rows) -> Nearest:
  """Returns the most similar rows of `best` and of the other tile.

  Of equally similar rows, those of `best` come first, and then those that stand first
  in the other tile. Arguments are as for `highest`.
  """
  count = best.cosine.shape[1]
  found = jnp.where(mask(left, right), cosines(left.values, right.values), -jnp.inf)
  cosine, place = jax.lax.top_k(found, min(count, found.shape[1]))
  mark = jnp.where(jnp.isfinite(cosine), right.mark[place], -1)
  cosine = jnp.concatenate([best.cosine, cosine], 1)
  cosine, place = jax.lax.top_k(cosine, count)
  mark = jnp.concatenate([best.mark, mark], 1)
  return Nearest(cosine, jnp.take_along_axis(mark, place, 1))


@jax.jit
def gaussian_sums(sums: Sums, left: Tile, right: Tile) -> Sums:
  """Adds exp(-|x - y|^2 / 2) over the rows of each row's group, itself included.

  Each term is rounded to a multiple of 2^-20, which is 1 in the sums.
  """
  # For vectors of length 1, |x - y|^2 = 2 - 2xy.
  terms = jnp.exp(cosines(left.values, right.values) - 1)
  return _add(sums, jnp.where(own_group(left, right), terms, 0))


def _add(sums: Sums, terms: Float[Array, "T U"]) -> Sums:
  """Adds terms from 0 to 1, of which there are at most 1,024 in a row."""
  assert terms.shape[1] <= 1 << (LIMB - 20)
  units = jnp.rint(jnp.minimum(terms, 1) * GRID).astype(jnp.int32)
  low = sums.low + units.sum(1)
  return Sums(sums.high + (low >> LIMB), low & ((1 << LIMB) - 1))
