"""The parameters of a selection, with their defaults and allowed values."""

import dataclasses
import math
from collections.abc import Mapping

from mllm_selector_jax.selection.bounds import MAX_SHARE, find_bound
from mllm_selector_jax.selection.limits import read_amounts
from mllm_selector_jax.types import InputError

TARGETS = ("tempered", "pool", "uniform", "given", "like")
WITHIN = ("uniform", "sample", "top", "cover")


@dataclasses.dataclass(frozen=True)
class SelectOptions:
  """The parameters of a selection, checked when they are created.

  Attributes:
    strategy: the name of a strategy, from `strategies.STRATEGIES` or a plug-in. The
      name is checked when the strategy is looked up.
    kl_weight: lambda, the cost of one nat of divergence from the target, in units of
      mean normalised necessity (which lies in [0, 1]).
    groups: "kmeans", "source", "necessity", a column, or a product ("a*b").
    clusters: the number of k-means clusters; 0 derives it from the number of rows.
    strata: the number of necessity strata of equal width, for groups "necessity" and
      the strategy `grouped`.
    target: how the target shares of the groups are found, one of `TARGETS`.
    target_shares: for target "given": one share for each group, in the order of the
      groups or by name (groups that are not named get 0).
    tempering: the power to which pool shares are raised, for target "tempered".
    within: the order of the rows inside a group, one of `WITHIN`.
    temperature: tau of within "sample"; the smaller it is, the closer to "top".
    floor: the minimum of rows that each group gets, as a share of its proportional
      part of the budget.
    cap: the maximum of rows taken from a group, as a share of its rows.
    most: the maximum of kept rows of each value of a column, by the column's name: a
      number, or a share of the value's rows, such as {"image": 2, "source": "10%"}.
    least: the minimum of kept rows of each value of a column, likewise.
    bound: which rows are suspect: a name from `bounds.BOUNDS` or a plug-in, or a
      number, the share of each group that has the highest necessity.
    competence: in groups of which the seed model answers at least this share of the
      rows wholly right, all other rows are suspect; 0 or None disables it.
    visual: whether rows that their image makes less likely are suspect.
    duplicates: a row is suspect if the cosine of its embedding with that of another
      row of its group is above this; 0 disables it.
  """

  strategy: str = "kl"
  kl_weight: float = 0.4
  groups: str = "kmeans"
  clusters: int = 0
  strata: int = 5
  target: str = "tempered"
  target_shares: tuple[float, ...] | Mapping[str, float] | None = None
  tempering: float = 0.5
  within: str = "uniform"
  temperature: float = 0.2
  floor: float = 0.2
  cap: float = 1.0
  most: Mapping[str, str | int] | str | None = None
  least: Mapping[str, str | int] | str | None = None
  bound: float | str = "mixture"
  competence: float | None = None
  visual: bool = False
  duplicates: float = 0.0

  def __post_init__(self):
    for name, allowed in (("target", TARGETS), ("within", WITHIN)):
      if getattr(self, name) not in allowed:
        raise InputError(
          f"select.{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}."
        )
    self._check("kl_weight", 0, 1e9)
    self._check("tempering", 0, 10)
    self._check("temperature", 1e-6, 1e6)
    self._check("floor", 0, 1)
    self._check("cap", 1e-9, 1)
    read_amounts(self.most, "select.most")
    read_amounts(self.least, "select.least")
    if not isinstance(self.strategy, str):
      raise InputError(f"select.strategy is {self.strategy!r}; it must be a name.")
    if not isinstance(self.bound, str):
      self._check("bound", 0, MAX_SHARE)
    find_bound(self.bound)
    self._check("duplicates", 0, 1)
    self._check("clusters", 0, 10**7, integer=True)
    self._check("strata", 1, 1000, integer=True)
    if self.competence is not None:
      self._check("competence", 0, 1)
    if not isinstance(self.groups, str) or not all(
      part.strip() for part in self.groups.split("*")
    ):
      raise InputError(
        f"select.groups is {self.groups!r}; it names kmeans, source, necessity or a"
        ' column, or a product of these such as "source*kmeans".'
      )
    if (self.target == "given") != (self.target_shares is not None):
      raise InputError(
        f"select.target is {self.target!r} and target_shares are"
        f" {'not ' if self.target_shares is None else ''}given; target_shares are"
        ' required for target "given" and allowed only with it.'
      )

  def _check(self, name: str, low: float, high: float, integer: bool = False):
    value = getattr(self, name)
    is_number = isinstance(value, int if integer else (int, float))
    if (
      isinstance(value, bool)
      or not is_number
      or not math.isfinite(value)
      or not low <= value <= high
    ):
      kind = "a whole number" if integer else "a number"
      raise InputError(
        f"select.{name} is {value!r}; it must be {kind} from {low:g} to {high:g}."
      )
