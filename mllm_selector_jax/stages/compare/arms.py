"""Which arms a comparison has, read from cfg.compare before anything is made."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from mllm_selector_jax.data import listing
from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection.strategies import STRATEGIES
from mllm_selector_jax.stages.draw import is_drawn
from mllm_selector_jax.types import InputError

RANDOM, FULL, WHOLE = "random", "full", "100%"
MATCHES = ("epochs", "steps")
VARIANT = re.compile(r"[A-Za-z0-9_.]+")
# Of cfg.select, what is no setting of one selection or what all arms share.
NOT_VARIED = ("budget", "control", "rounds", "search", "sweep")


class Arm(NamedTuple):
  """One strategy or variant at one budget; with a seed it is a folder of `arms/`."""

  strategy: str
  budget: str

  def name(self, seed: int) -> str:
    return f"{self.strategy}-{self.budget.replace(' ', '')}-{seed}"


POOL = Arm(FULL, WHOLE)


class Plan(NamedTuple):
  """What is compared.

  Attributes:
    arms: of each seed: the full pool, where it is wanted, then at every budget random
      and the others.
    seeds: rng seeds.
    match: what all arms have the same number of.
    fresh_pools: whether the demo pool is drawn with each seed.
    variants: by an arm's `strategy`, where that is a variant: its settings, the
      strategy's own name among them.
  """

  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  match: str
  fresh_pools: bool
  variants: Mapping[str, Mapping[str, Any]] = {}

  def strategy(self, arm: Arm) -> str:
    """The name in `selection.strategies` of what selects an arm's rows."""
    if arm.strategy == FULL:
      return RANDOM
    return self.variants.get(arm.strategy, {}).get("strategy", arm.strategy)

  def changes(self, arm: Arm) -> dict[str, Any]:
    """An arm's other settings of cfg.select, where they are not the config's."""
    own = dict(self.variants.get(arm.strategy, {}))
    own.pop("strategy", None)
    return own


def read_plan(cfg: Any) -> Plan:
  """The plan of a config; `random` is always in it, and `full` by compare.full.

  Raises:
    InputError: an empty list, an unknown strategy or setting, the same arm twice, a
      budget, seed or match that is none, or the full pool both named and left out.
  """
  own = cfg.compare
  variants = _read_variants(own.variants, cfg)
  strategies = _read_list(own.strategies, "strategies", "kl,grouped")
  written = _read_list(own.budgets, "budgets", "5%,20%")
  seeds = tuple(read_seed(text) for text in _read_list(own.seeds, "seeds", "0,1,2"))
  if own.match not in MATCHES:
    raise InputError(
      f"compare.match={own.match!r}: allowed are {' and '.join(MATCHES)}."
    )
  if own.fresh_pools and not is_drawn(cfg):
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
  _refuse_twins(strategies, written, seeds[0])
  if FULL in strategies and not own.full:
    raise InputError(
      "compare.strategies has 'full', and compare.full=False leaves the full pool out;"
      " change one of them."
    )
  others = [name for name in (*strategies, *variants) if name not in (RANDOM, FULL)]
  arms = [Arm(name, text) for text in written for name in (RANDOM, *others)]
  if own.full:
    arms.insert(0, POOL)
  return Plan(tuple(arms), seeds, own.match, bool(own.fresh_pools), variants)


def _read_variants(value: Any, cfg: Any) -> dict[str, dict[str, Any]]:
  """Settings by a variant's name, from a dict or "name: key=value, ...; name: ..."."""
  if not value:
    return {}
  given = value.items() if not isinstance(value, str) else _split_variants(value)
  found: dict[str, dict[str, Any]] = {}
  for name, changes in given:
    where = f"compare.variants has {name!r}"
    if name in found:
      raise InputError(f"{where} twice; give each variant a name of its own.")
    if not VARIANT.fullmatch(name) or name in (FULL, *STRATEGIES):
      raise InputError(
        f"{where}, which is a strategy or cannot be a folder's name; name a variant by"
        " letters, digits, dots and underscores."
      )
    found[name] = {"strategy": cfg.select.strategy}
    for key, setting in dict(changes).items():
      found[name][key] = _read_setting(key, setting, cfg.select, where)
  return found


def _split_variants(text: str) -> Iterator[tuple[str, dict[str, str]]]:
  for each in filter(str.strip, text.split(";")):
    name, _, settings = each.partition(":")
    changes = {}
    for part in filter(str.strip, settings.split(",")):
      key, equals, setting = part.partition("=")
      if not equals:
        raise InputError(
          f"compare.variants has {each.strip()!r}; write a name and settings, as"
          ' in "open: bound=none; narrow: kl_weight=0.1, floor=0".'
        )
      changes[key.strip()] = setting.strip()
    yield name.strip(), changes


def _read_setting(key: str, value: Any, section: Any, where: str) -> Any:
  """A value as the section's own is: a number as a float, where that one is."""
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
  found = listing.split_names(value)
  if value is None or not found:
    raise InputError(
      f"compare.{name} is empty; give at least one, as in"
      f" --config.compare.{name}={example}."
    )
  return found


def read_seed(text: str) -> int:
  """A seed of `compare.seeds`.

  Raises:
    InputError: it is no whole number.
  """
  if not text.isdecimal():
    raise InputError(
      f"compare.seeds has {text!r}; a seed is a whole number, 0 or more."
    )
  return int(text)


def check_strategy(name: str, option: str) -> None:
  """Refuses a name that no arm can have its strategy by.

  Raises:
    InputError: it is neither a strategy nor the full pool.
  """
  if name == FULL:
    return
  if name not in STRATEGIES:
    near = difflib.get_close_matches(name, STRATEGIES, 1)
    raise InputError(
      f"{option} has {name!r}"
      + (f" (did you mean {near[0]}?)" if near else "")
      + f"; there are {', '.join(STRATEGIES)}."
    )


def _refuse_twins(strategies: list[str], written: list[str], seed: int) -> None:
  """Refuses two arms of one folder, or two names of one arm."""
  for place, name in enumerate(strategies):
    if name in strategies[:place]:
      folder = Arm(name, written[0]).name(seed)
      raise InputError(
        f"compare.strategies has {name!r} twice: two arms would write to"
        f" arms/{folder}. Name each strategy once."
      )
  known: dict[tuple, str] = {}
  for text in written:
    budget = budgets.parse(text, "compare.budgets")
    before = known.setdefault((budget.kind, budget.amount), text)
    if before is not text or written.count(text) > 1:
      folder = Arm(strategies[0], before).name(seed)
      raise InputError(
        f"compare.budgets has {before!r} and {text!r}, which are the same: two arms"
        f" would write to arms/{folder}. Name each budget once."
      )
