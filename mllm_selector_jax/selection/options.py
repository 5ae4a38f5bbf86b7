"""How to select: every parameter, its default, and what it may be."""

import dataclasses
import math
from collections.abc import Mapping

from mllm_selector_jax.selection.bounds import MOST, find_bound
from mllm_selector_jax.types import InputError

TARGETS = ("tempered", "pool", "uniform", "given", "like")
WITHIN = ("uniform", "sample", "top")


@dataclasses.dataclass(frozen=True)
class SelectOptions:
  """Parameters of a selection; checks itself.

  Attributes:
    strategy: a name of `strategies.STRATEGIES` or a plug-in's; whoever looks it up
      checks it.
    kl_weight: lambda, what a nat of divergence from the target costs in units
      of mean necessity (which is in [0, 1]).
    groups: "kmeans", "source", "necessity", a column, or products ("a*b").
    clusters: of k-means; 0 goes by the number of rows.
    strata: of equal width in necessity, for "necessity" and `grouped`.
    target: target shares of the groups, one of `TARGETS`.
    target_shares: for target "given": a share a group, in the groups' order or
      by their names (groups that are not named get 0).
    tempering: the power of the pool share, for target "tempered".
    within: order inside a group, one of `WITHIN`.
    temperature: tau of within "sample"; smaller is closer to "top".
    floor: rows that each group gets at least, as a share of its proportional
      part of the budget.
    cap: the most of a group's rows that are taken, as a share of them.
    bound: which rows are suspect: a name of `bounds.BOUNDS`, a plug-in's, or a number,
      which is the top share of each group's necessity.
    competence: where the seed model gets at least this share of a group's rows
      wholly right, those that it does not are suspect; 0 or None is off.
    visual: whether rows that the image makes less likely are suspect.
    duplicates: a row whose embedding has a cosine above this with another one of
      its group is suspect; 0 is off.
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
    if not isinstance(self.strategy, str):
      raise InputError(f"select.strategy is {self.strategy!r}; it must be a name.")
    if not isinstance(self.bound, str):
      self._check("bound", 0, MOST)
    find_bound(self.bound)
    self._check("duplicates", 0, 1)
    self._check("clusters", 0, 10**7, whole=True)
    self._check("strata", 1, 1000, whole=True)
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
        f" {'not ' if self.target_shares is None else ''}given; shares go with"
        ' target "given", and only with it.'
      )

  def _check(self, name: str, low: float, high: float, whole: bool = False):
    value = getattr(self, name)
    number = isinstance(value, int if whole else (int, float))
    if (
      isinstance(value, bool)
      or not number
      or not math.isfinite(value)
      or not low <= value <= high
    ):
      kind = "a whole number" if whole else "a number"
      raise InputError(
        f"select.{name} is {value!r}; it must be {kind} from {low:g} to {high:g}."
      )
