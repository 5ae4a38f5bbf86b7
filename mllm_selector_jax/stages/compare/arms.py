"""Which arms a comparison has, read from cfg.compare before anything is made."""

import difflib
from typing import Any, NamedTuple

from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection.strategies import STRATEGIES
from mllm_selector_jax.stages import base
from mllm_selector_jax.types import InputError

RANDOM, FULL, WHOLE = "random", "full", "100%"
MATCHES = ("epochs", "steps")


class Arm(NamedTuple):
  """One strategy at one budget; with a seed it is a folder of `arms/`."""

  strategy: str
  budget: str

  def name(self, seed: int) -> str:
    return f"{self.strategy}-{self.budget.replace(' ', '')}-{seed}"


class Plan(NamedTuple):
  """What is compared.

  Attributes:
    arms: of each seed: the full pool, then at every budget random and the others.
    seeds: rng seeds.
    match: what all arms have the same number of.
    fresh_pools: whether the demo pool is drawn with each seed.
  """

  arms: tuple[Arm, ...]
  seeds: tuple[int, ...]
  match: str
  fresh_pools: bool


def read_plan(cfg: Any) -> Plan:
  """The plan of a config; `random` and `full` are always in it.

  Raises:
    InputError: an empty list, an unknown strategy or one whose signal is not
      scored, the same arm twice, or a budget, seed or match that is none.
  """
  own = cfg.compare
  strategies = _read_list(own.strategies, "strategies", "kl,grouped")
  written = _read_list(own.budgets, "budgets", "5%,20%")
  seeds = tuple(_read_seed(text) for text in _read_list(own.seeds, "seeds", "0,1,2"))
  if own.match not in MATCHES:
    raise InputError(
      f"compare.match={own.match!r}: allowed are {' and '.join(MATCHES)}."
    )
  if own.fresh_pools and not cfg.pool.demo.rows:
    raise InputError(
      "compare.fresh_pools draws the demo pool with each seed, and pool.demo.rows is"
      " 0. Give --config.pool.demo.rows=N, or leave fresh_pools out."
    )
  for place, seed in enumerate(seeds):
    if seed in seeds[:place]:
      raise InputError(
        f"compare.seeds has {seed} twice, which would count one result twice; name"
        " each seed once."
      )
  for name in strategies:
    _check_strategy(name, cfg)
  _refuse_twins(strategies, written, seeds[0])
  others = [name for name in strategies if name not in (RANDOM, FULL)]
  arms = [Arm(name, text) for text in written for name in (RANDOM, *others)]
  return Plan((Arm(FULL, WHOLE), *arms), seeds, own.match, bool(own.fresh_pools))


def _read_list(value: Any, name: str, example: str) -> list[str]:
  found = base.split_files(value if isinstance(value, tuple | list) else str(value))
  if value is None or not found:
    raise InputError(
      f"compare.{name} is empty; give at least one, as in"
      f" --config.compare.{name}={example}."
    )
  return found


def _read_seed(text: str) -> int:
  if not text.isdecimal():
    raise InputError(
      f"compare.seeds has {text!r}; a seed is a whole number, 0 or more."
    )
  return int(text)


def _check_strategy(name: str, cfg: Any) -> None:
  if name == FULL:
    return
  if name not in STRATEGIES:
    near = difflib.get_close_matches(name, STRATEGIES, 1)
    raise InputError(
      f"compare.strategies has {name!r}"
      + (f" (did you mean {near[0]}?)" if near else "")
      + f"; there are {', '.join(STRATEGIES)}."
    )
  for signal in (*STRATEGIES[name].signals, cfg.select.signal):
    if signal != "loss" and signal not in cfg.score.signals:
      raise InputError(
        f"compare.strategies has {name!r}, which needs the signal {signal!r}, and"
        f" score.signals is {', '.join(cfg.score.signals)}; add it there."
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
