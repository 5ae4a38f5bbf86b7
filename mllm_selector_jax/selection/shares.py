"""What the groups are to get: means, target shares, floors and ideal quotas."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.types import InputError


def group_means(
  values: Float[np.ndarray, " N"], groups: Int[np.ndarray, " N"], count: int
) -> Float[np.ndarray, " G"]:
  """Each group's mean of values in [0, 1]; 0 for an empty one.

  Added up in multiples of 2^-32, exactly, so the order of rows is no matter.
  """
  sums = np.zeros(count, np.int64)
  np.add.at(sums, groups, np.rint(values * 2.0**32).astype(np.int64))
  sizes = np.bincount(groups, minlength=count)
  return sums / (np.maximum(sizes, 1) * 2.0**32)


def target_shares(
  sizes: Int[np.ndarray, " G"],
  kind: str,
  tempering: float = 0.5,
  given: tuple[float, ...] | Mapping[str, float] | None = None,
  names: tuple[str, ...] = (),
  like: Int[np.ndarray, " G"] | None = None,
) -> Float[np.ndarray, " G"]:
  """Target shares q of the groups.

  Args:
    sizes: rows of each group that may be taken; an empty group gets 0 unless
      shares are given.
    kind: "pool" (p), "tempered" (proportional to p ** tempering), "uniform",
      "given", or "like" (the shares of a set of samples).
    tempering: the power.
    given: for "given", a share a group, in their order or by name.
    names: of the groups, for shares by name.
    like: for "like", how many of those samples each group holds.

  Raises:
    InputError: given shares that are not one a group, negative, or do not sum
      to 1, or name no group; no samples to be like.
  """
  if kind == "like":
    if like is None or not like.sum():
      raise InputError(
        "select.target is 'like', but no samples are given to be like; name them in"
        " select.like."
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
        f"{shares.size} target shares are given for {len(sizes)} groups; give one a"
        " group, in the groups' order."
      )
    if not np.all(shares >= 0) or abs(shares.sum() - 1) > 1e-6:
      raise InputError(
        f"select.target_shares sum to {shares.sum():.6g} with a smallest of"
        f" {shares.min():.6g}; they must not be negative and must sum to 1."
      )
    return shares / shares.sum()
  power = {"pool": 1.0, "tempered": tempering, "uniform": 0.0}[kind]
  weights = np.where(sizes > 0, np.maximum(sizes, 1) ** power, 0.0)
  return normalise(weights)


def normalise(weights: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
  """Shares in proportion to weights; all 0 if these are."""
  return weights / max(weights.sum(), 1e-300)


def proportional_floors(
  sizes: Int[np.ndarray, " G"], total: int
) -> Int[np.ndarray, " G"]:
  """`total` rows shared out in proportion to the groups' sizes.

  By highest averages (Jefferson, D'Hondt): no group gets less than its whole
  part of total * size / sum, and one more in total never takes from a group,
  without which budgets would not nest.
  """
  pool = int(sizes.sum())
  if total <= 0 or pool == 0:
    return np.zeros(len(sizes), np.int64)
  floors = total * sizes.astype(np.int64) // pool
  left = total - int(floors.sum())
  # Fewer than G are left, and a group may get several of them.
  while left > 0:
    average = sizes / (floors + 1)
    best = np.lexsort((np.arange(len(sizes)), -average))[:left]
    # Whatever is above every group's next average but one goes at once.
    safe = best[average[best] > np.max(sizes / (floors + 2))]
    floors[safe] += 1
    left -= len(safe)
  return floors


def ideal_quotas(
  means: Float[np.ndarray, " G"],
  shares: Float[np.ndarray, " G"],
  kl_weight: float,
) -> Float[np.ndarray, " G"]:
  """Shares q exp(mean / lambda) / Z of `uniform`, before rounding and floors.

  NaN at lambda 0, where the best group takes all that it has.
  """
  if kl_weight == 0:
    return np.full(len(shares), np.nan)
  weights = shares * np.exp((means - means.max(initial=0.0)) / kl_weight)
  return normalise(weights)
