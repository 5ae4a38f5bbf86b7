"""The share of each group in a selection: target shares, floors and ideal quotas."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.selection.sorting import chunks
from mllm_selector_jax.types import InputError


def group_means(
  values: Float[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  count: int,
  mask: Bool[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " G"]:
  """Returns the mean of each group's values, which are in [0, 1]; 0 if it is empty.

  Values are summed exactly, as integer multiples of 2^-32, so that the result does
  not depend on the order of the rows.

  Args:
    values: the values.
    groups: the group of each value, from 0 to count - 1.
    count: the number of groups.
    mask: the values that count; all by default.
  """
  sums, sizes = np.zeros((2, count), np.int64)
  for part in chunks(len(values)):
    wanted = slice(None) if mask is None else mask[part]
    group, value = groups[part][wanted], values[part][wanted]
    np.add.at(sums, group, np.rint(value * 2.0**32).astype(np.int64))
    np.add.at(sizes, group, 1)
  return sums / (np.maximum(sizes, 1) * 2.0**32)


def target_shares(
  sizes: Int[np.ndarray, " G"],
  kind: str,
  tempering: float = 0.5,
  given: tuple[float, ...] | Mapping[str, float] | None = None,
  names: tuple[str, ...] = (),
  like: Int[np.ndarray, " G"] | None = None,
) -> Float[np.ndarray, " G"]:
  """Returns the target shares q of the groups.

  Args:
    sizes: the number of rows of each group that may be taken. An empty group gets 0,
      unless shares are given.
    kind: "pool" (the shares p of the groups in the pool), "tempered" (proportional
      to p ** tempering), "uniform", "given", or "like" (the shares of a set of
      samples).
    tempering: the power, for "tempered".
    given: for "given", one share for each group, in the order of the groups or by
      name.
    names: the names of the groups, for shares by name.
    like: for "like", how many of the samples each group holds.

  Raises:
    InputError: the given shares are not one for each group, are negative, do not sum
      to 1 or name an unknown group; or there are no samples for "like".
  """
  if kind == "like":
    if like is None or not like.sum():
      raise InputError(
        "select.target is 'like', but no samples are given; name them in select.like."
      )
    return normalise(like.astype(np.float64))
  if kind == "given":
    if isinstance(given, Mapping):
      if unknown := sorted(set(given) - set(names)):
        raise InputError(
          f"select.target_shares names {unknown[0]!r}, which is no group; the"
          f" {len(names)} groups are {', '.join(names[:20])}"
          f"{', ...' if len(names) > 20 else ''}."
        )
      given = tuple(given.get(name, 0.0) for name in names)
    shares = np.asarray(given, np.float64)
    if shares.shape != sizes.shape:
      raise InputError(
        f"{shares.size} target shares are given for {len(sizes)} groups; give one for"
        " each group, in the order of the groups."
      )
    if not np.all(shares >= 0) or abs(shares.sum() - 1) > 1e-6:
      raise InputError(
        f"select.target_shares sum to {shares.sum():.6g}, and the smallest is"
        f" {shares.min():.6g}; they must not be negative and must sum to 1."
      )
    return shares / shares.sum()
  power = {"pool": 1.0, "tempered": tempering, "uniform": 0.0}[kind]
  weights = np.where(sizes > 0, np.maximum(sizes, 1) ** power, 0.0)
  return normalise(weights)


def normalise(weights: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
  """Scales weights so that they sum to 1; all 0 if all weights are 0."""
  return weights / max(weights.sum(), 1e-300)


def proportional_floors(
  sizes: Int[np.ndarray, " G"], total: int
) -> Int[np.ndarray, " G"]:
  """Distributes `total` rows over the groups in proportion to their sizes.

  The method is that of highest averages (Jefferson, D'Hondt): no group gets less than
  floor(total * size / sum of sizes), and a larger total never takes a row from a
  group. Without the second property, smaller selections would not be contained in
  larger ones.
  """
  pool = int(sizes.sum())
  if total <= 0 or pool == 0:
    return np.zeros(len(sizes), np.int64)
  floors = total * sizes.astype(np.int64) // pool
  unassigned = total - int(floors.sum())
  # Fewer than G rows are unassigned, and a group may get several of them.
  while unassigned > 0:
    average = sizes / (floors + 1)
    best = np.lexsort((np.arange(len(sizes)), -average))[:unassigned]
    # Assign all rows that come before any group's second one: those whose average is
    # above what every group's average would be after one more row.
    certain = best[average[best] > np.max(sizes / (floors + 2))]
    floors[certain] += 1
    unassigned -= len(certain)
  return floors


def ideal_quotas(
  means: Float[np.ndarray, " G"],
  shares: Float[np.ndarray, " G"],
  kl_weight: float,
) -> Float[np.ndarray, " G"]:
  """Returns the optimal shares for within "uniform", before rounding and floors.

  They are q exp(mean / lambda) / Z, the maximum of mean value minus lambda times the
  divergence from q. At lambda 0, where the best group gives all its rows, they are
  NaN.

  Args:
    means: the mean normalised necessity of each group.
    shares: the target shares q.
    kl_weight: lambda.
  """
  if kl_weight == 0:
    return np.full(len(shares), np.nan)
  weights = shares * np.exp((means - means.max(initial=0.0)) / kl_weight)
  return normalise(weights)
