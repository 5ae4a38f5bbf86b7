"""Reads the arms of a comparison from cfg.compare, before anything is made."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from mllm_selector_jax import listing
from mllm_selector_jax.comparison.published import (
  NAME,
  check_published,
  has_scores,
  parse_budget,
  read_published,
  split_budget,
)
from mllm_selector_jax.inputs.drawn_demo import is_drawn
from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection import strategies as table
from mllm_selector_jax.types import InputError

RANDOM, FULL, WHOLE = table.CONTROL, "full", "100%"
REFERENCE = table.REFERENCE
MATCHES = ("epochs", "steps")
# The keys of cfg.select that a variant may not set: they are not settings of a single
# selection, or are the same for all arms.
NOT_VARIED = (
  *("budget", "control", "reference", "most_missing", "rounds", "search", "sweep"),
)


class Arm(NamedTuple):
  """A strategy or variant at a budget; for each seed it has a folder in `arms/`."""

  strategy: str
  budget: str

  def name(self, seed: int) -> str:
    """Returns the name of the arm's folder for a seed."""
    strategy = self.strategy.replace(":", ".")  # in the name of a plug-in
    return f"{strategy}-{self.budget.replace(' ', '')}-{seed}"


POOL = Arm(FULL, WHOLE)
INCUMBENT = Arm(REFERENCE, "100%ref")  # the rows of select.reference
NO_LIMITS = {"most": None, "least": None}
# Of lists of rows that are what they are: no row is added to them or held out.
GIVEN = {"force_in": None, "development": 0.0, **NO_LIMITS}
BASELINES = (POOL, INCUMBENT)  # arms that are the same at every budget


class Plan(NamedTuple):
  """The plan of a comparison.

  Attributes:
    arms: the arms of each seed: the full pool, unless it is left out, the reference if
      there is one, and then for every budget random and the other strategies.
    seeds: the rng seeds.
    match: what is the same for all arms, "epochs" or "steps".
    fresh_pools: whether each seed draws a demo pool of its own.
    variants: the settings of each variant by its name, which is the `strategy` of its
      arms. The setting "strategy" is the name of the strategy that it varies.
    published: the file of each published selection by its name, which is the `strategy`
      of its arms.
  """

  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  match: str
  fresh_pools: bool
  variants: Mapping[str, Mapping[str, Any]] = {}
  published: Mapping[str, str] = {}

  def strategy(self, arm: Arm) -> str:
    """Returns the name in `selection.strategies` of an arm's strategy."""
    if arm.strategy == FULL:
      return RANDOM
    if arm.strategy in self.published:
      return REFERENCE
    return self.variants.get(arm.strategy, {}).get("strategy", arm.strategy)

  def changes(self, arm: Arm) -> dict[str, Any]:
    """Returns the settings of cfg.select in which an arm differs from the config."""
    if arm == INCUMBENT:
      return dict(GIVEN)
    if arm == POOL:
      return dict(NO_LIMITS)
    settings = dict(self.variants.get(arm.strategy, {}))
    settings.pop("strategy", None)
    if name := split_budget(arm.budget)[1]:
      settings["reference"] = self.published[name]
    if file := self.published.get(arm.strategy):
      settings |= (
        {"reference": file} if has_scores(file) else {**GIVEN, "reference": file}
      )
    return settings

  def budget(self, arm: Arm) -> str:
    """Returns an arm's budget as `select.budget` writes it."""
    return split_budget(arm.budget)[0]

  def longest(self) -> Arm:
    """Returns the arm whose steps all arms take if `match` is "steps".

    It is the full pool, even if no model is tuned on it; but the reference, if there is
    one and the full pool is left out.
    """
    leads_pool = INCUMBENT in self.arms and POOL not in self.arms
    return INCUMBENT if leads_pool else POOL


def read_plan(cfg: Any) -> Plan:
  """Reads the plan of a config.

  It always has `random`, `full` by compare.full, and `reference` if select.reference is
  given.

  Raises:
    InputError: a list is empty, a strategy or setting is unknown, an arm occurs twice,
      a budget, seed or match is wrong, a baseline is both named and left out, or the
      reference of one pool is given for several.
  """
  section = cfg.compare
  variants = _read_variants(section.variants, cfg)
  strategies = _read_list(section.strategies, "strategies", "kl,grouped")
  budget_texts = _read_list(section.budgets, "budgets", "5%,20%")
  seeds = tuple(read_seed(text) for text in _read_list(section.seeds, "seeds", "0,1,2"))
  if section.match not in MATCHES:
    raise InputError(
      f"compare.match={section.match!r}: allowed are {' and '.join(MATCHES)}."
    )
  if section.fresh_pools and not is_drawn(cfg):
    raise InputError(
      "compare.fresh_pools draws the demo pool with each seed, and "
      + ("pool.data is given" if cfg.pool.data else "pool.demo.rows is 0")
      + ". Draw one by --config.pool.demo.rows=N without pool.data, or leave"
      " fresh_pools out."
    )
  for place, seed in enumerate(seeds):
    if seed in seeds[:place]:
      raise InputError(
        f"compare.seeds has {seed} twice, which would count one result twice; name"
        " each seed once."
      )
  for name in strategies:
    check_strategy(name, "compare.strategies")
  for name, changes in variants.items():
    check_strategy(changes["strategy"], f"compare.variants: {name}")
  _refuse_repeats(strategies, budget_texts, seeds[0])
  _check_reference(cfg, strategies, budget_texts, seeds)
  if FULL in strategies and not section.full:
    raise InputError(
      "compare.strategies has 'full', and compare.full=False leaves the full pool out;"
      " change one of them."
    )
  controls = (RANDOM, FULL, REFERENCE)
  others = [name for name in (*strategies, *variants) if name not in controls]
  published = read_published(section.published)
  check_published(
    published, budget_texts, (*strategies, *variants, *table.LOOKUP.list_names(), FULL)
  )
  baselines = [POOL] if section.full else []
  baselines += [INCUMBENT] if cfg.select.reference else []
  others += [name for name, file in published.items() if has_scores(file)]
  arms = [Arm(name, text) for text in budget_texts for name in (RANDOM, *others)]
  for name, file in published.items():
    if not has_scores(file):
      arms += [Arm(kind, f"100%{name}") for kind in (name, RANDOM)]
  arms = list(dict.fromkeys(baselines + arms))
  fresh_pools = bool(section.fresh_pools)
  return Plan(tuple(arms), seeds, section.match, fresh_pools, variants, published)


def _check_reference(
  cfg: Any, strategies: list[str], budget_texts: list[str], seeds: tuple[int, ...]
) -> None:
  """Raises InputError if a reference is missing, or stands for several pools."""
  if cfg.select.reference or cfg.compare.published:
    if cfg.compare.fresh_pools and len(seeds) > 1:
      option = "select.reference" if cfg.select.reference else "compare.published"
      raise InputError(
        f"{option} names rows of one pool, and compare.fresh_pools draws"
        f" {len(seeds)} pools, one for each of compare.seeds. Make a comparison of each"
        " seed, with lists and a workdir of its own."
      )
  if cfg.select.reference:
    return
  if REFERENCE in strategies:
    raise InputError(
      "compare.strategies has 'reference', the mixture that is trained on today, which"
      " is not given; give it as --config.select.reference=FILE."
    )
  for text in budget_texts:
    if not split_budget(text)[1]:
      budgets.relate(text, None, "compare.budgets")


def _read_variants(value: Any, cfg: Any) -> dict[str, dict[str, Any]]:
  """Reads settings of variants, from a dict or "name: key=value, ...; name: ..."."""
  if not value:
    return {}
  pairs = value.items() if not isinstance(value, str) else _split_variants(value)
  variants: dict[str, dict[str, Any]] = {}
  for name, changes in pairs:
    where = f"compare.variants has {name!r}"
    if name in variants:
      raise InputError(f"{where} twice; give each variant a name of its own.")
    if not NAME.fullmatch(name) or name in (FULL, *table.LOOKUP.list_names()):
      raise InputError(
        f"{where}, which is a strategy or cannot be a folder's name; name a variant by"
        " letters, digits, dots and underscores."
      )
    variants[name] = {"strategy": cfg.select.strategy}
    for key, setting in dict(changes).items():
      variants[name][key] = _read_setting(key, setting, cfg.select, where)
  return variants


def _split_variants(text: str) -> Iterator[tuple[str, dict[str, str]]]:
  for variant in filter(str.strip, text.split(";")):
    name, _, settings = variant.partition(":")
    changes = {}
    for part in filter(str.strip, settings.split(",")):
      key, equals, setting = part.partition("=")
      if not equals:
        raise InputError(
          f"compare.variants has {variant.strip()!r}; write a name and settings, as"
          ' in "open: bound=none; narrow: kl_weight=0.1, floor=0".'
        )
      changes[key.strip()] = setting.strip()
    yield name.strip(), changes


def _read_setting(key: str, value: Any, section: Any, where: str) -> Any:
  """Reads a variant's setting; a number becomes a float if the config has a float."""
  allowed = [name for name in section if name not in NOT_VARIED]
  if key not in allowed:
    near = difflib.get_close_matches(key, allowed, 1)
    raise InputError(
      f"{where} with the setting {key!r}"
      + (f" (did you mean {near[0]}?)" if near else "")
      + f"; there are {', '.join(allowed)}."
    )
  if isinstance(value, str) and not isinstance(section[key], str):
    try:
      value = yaml.safe_load(value)
    except yaml.YAMLError as error:
      raise InputError(f"{where} with {key}={value}, which is no value.") from error
  number = isinstance(value, int) and not isinstance(value, bool)
  return float(value) if number and isinstance(section[key], float) else value


def _read_list(value: Any, name: str, example: str) -> list[str]:
  names = listing.split_names(value)
  if value is None or not names:
    raise InputError(
      f"compare.{name} is empty; give at least one, as in"
      f" --config.compare.{name}={example}."
    )
  return names


def read_seed(text: str) -> int:
  """Reads a seed of `compare.seeds`.

  Raises:
    InputError: the text is not a whole number.
  """
  if not text.isdecimal():
    raise InputError(
      f"compare.seeds has {text!r}; a seed is a whole number, 0 or more."
    )
  return int(text)


def check_strategy(name: str, option: str) -> None:
  """Checks the name of an arm's strategy.

  Args:
    name: the name of a strategy, or "full".
    option: the option that has the name, for the message.

  Raises:
    InputError: the name is neither that of a strategy nor "full".
  """
  if name == FULL:
    return
  table.LOOKUP.find(name, option, "has")


def _refuse_repeats(strategies: list[str], budget_texts: list[str], seed: int) -> None:
  """Raises InputError if two arms are the same or would have the same folder."""
  for place, name in enumerate(strategies):
    if name in strategies[:place]:
      folder = Arm(name, budget_texts[0]).name(seed)
      raise InputError(
        f"compare.strategies has {name!r} twice: two arms would write to"
        f" arms/{folder}. Name each strategy once."
      )
  known: dict[tuple, str] = {}
  for text in budget_texts:
    name, budget = parse_budget(text, "compare.budgets")
    before = known.setdefault((name, budget.kind, budget.amount), text)
    if before is not text or budget_texts.count(text) > 1:
      folder = Arm(strategies[0], before).name(seed)
      raise InputError(
        f"compare.budgets has {before!r} and {text!r}, which are the same: two arms"
        f" would write to arms/{folder}. Name each budget once."
      )
