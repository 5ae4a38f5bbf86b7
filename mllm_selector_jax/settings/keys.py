"""Checks the value of every key of the config.

A new key is one more line here. `relations` checks what must hold between keys.
"""

from typing import Any

from mllm_selector_jax import listing
from mllm_selector_jax.comparison import comparison_plan, published
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import splits
from mllm_selector_jax.data.pool import pool_check, sources
from mllm_selector_jax.data.tokens import box_forms, conversation
from mllm_selector_jax.data.tokens.chat_date import read_date
from mllm_selector_jax.data.tokens.specials import read_choice
from mllm_selector_jax.evaluation import metrics, tasks
from mllm_selector_jax.inputs import base_model, held_out
from mllm_selector_jax.models.config import ATTENTION, REMAT
from mllm_selector_jax.pipeline.candidates import read_bound
from mllm_selector_jax.pipeline.export_arm import choose_forms
from mllm_selector_jax.pipeline.trackers import choose_trackers
from mllm_selector_jax.pipeline.tuning_recipe import read_modules
from mllm_selector_jax.planning import described_pool, hours, topology
from mllm_selector_jax.scoring import signals
from mllm_selector_jax.selection import budget
from mllm_selector_jax.selection.options import TARGETS, SelectOptions
from mllm_selector_jax.selection.strategies import LOOKUP, find_strategy
from mllm_selector_jax.settings.kinds import (
  POSITIVE,
  SHARE,
  Check,
  all_of,
  flag,
  folder_name,
  ids,
  integer,
  list_of,
  mapping,
  name,
  number,
  one_of,
  optional,
  parsed,
  refuse,
  sequence,
  text,
  texts,
)
from mllm_selector_jax.training.optimizer_options import MOMENTS, TRAINABLE
from mllm_selector_jax.types import InputError

MOST_TOKENS = 1 << 20  # of a packed row; attention over more fits into no memory
MOST_SEED = (1 << 32) - 1  # the largest seed that jax accepts


def _amount(key: str, value: Any) -> None:
  budget.parse(value, key)


def _rows(key: str, value: Any) -> None:
  _amount(key, value)
  if budget.parse(value).kind not in ("rows", "percent", "tokens"):
    refuse(key, value, 'a number of rows, a share of the pool ("5%") or tokens')


def _option(option: str) -> Check:
  """Return the check of a field of `SelectOptions`."""
  return parsed(lambda value: SelectOptions(**{option: value}))


def _written_option(option: str) -> Check:
  """Return the check of a numeric field of `SelectOptions` that is given as text."""

  def check(key: str, value: str) -> None:
    try:
      weight = float(value)
    except ValueError as error:
      raise InputError(f"{key} has {value!r}, which is no number.") from error
    _option(option)(key, weight)

  return check


def _spike(key: str, value: Any) -> None:
  number(0)(key, value)
  if 0 < value <= 1:
    refuse(key, value, "above 1, or 0 for no limit")


def _signals(key: str, value: Any) -> None:
  if value is None:
    refuse(key, value, "a list of signals, such as loss,accuracy")
  texts(key, value)
  signals.find_plugged(listing.split_names(value))


def _metrics(key: str, value: Any) -> None:
  texts(key, value)
  for metric in listing.split_names(value):
    metrics.LOOKUP.find(metric, key, "names")


def _formats(key: str, value: Any) -> None:
  texts(key, value)
  for item in listing.split_names(value):
    formats.LOOKUP.find(item, key, "names")


def _modules(key: str, value: Any) -> None:
  texts(key, value)
  try:
    read_modules(value)
  except InputError as error:
    raise InputError(f"{key}={value!r}: {error}") from error


def _candidates(key: str, value: Any) -> None:
  integer(0)(key, value)
  if value == 1:
    refuse(key, value, "2 or more, or 0 for no search")


def _axis(key: str, value: Any) -> None:
  integer(-1)(key, value)
  if value == 0:
    refuse(key, value, "1 or more, or -1 for all devices that are left")


def _rules(key: str, value: Any) -> None:
  sequence(key, value)
  for pair in value:
    if not isinstance(pair, tuple | list) or [type(part) for part in pair] != [str] * 2:
      refuse(key, value, "a list of pairs of a task and a regular expression, as texts")
  parsed(tasks.compile_rules)(key, value)


def _named(section: str, checks: dict[str, Check]) -> dict[str, Check]:
  return {f"{section}.{key}": check for key, check in checks.items()}


RECIPE: dict[str, Check] = {
  "epochs": integer(1),
  "batch": integer(1),
  "accumulate": integer(1),
  "learning_rate": POSITIVE,
  "warmup": number(0, 1, "[)"),
  "weight_decay": number(0, ends="[)"),
  "b1": number(0, 1, "[)"),
  "b2": number(0, 1, "[)"),
  "clip": number(0, ends="(]"),
  "first_moment": one_of(*MOMENTS),
  "trainable": one_of(*TRAINABLE),
  "projector_learning_rate": optional(POSITIVE),
  "lora.rank": integer(0),
  "lora.alpha": POSITIVE,
  "lora.modules": _modules,
  "group_by_modality_length": flag,
  "row_length": integer(1, MOST_TOKENS),
  "save_every": integer(0),
  "keep": integer(1),
  "keep_best": integer(0),
  "spike": _spike,
  "threads": integer(0),
}

POOL: dict[str, Check] = {
  "data": texts,
  "images": texts,
  "links": one_of(*base_model.LINKS),
  "formats": _formats,
  "splits": all_of(texts, parsed(splits.parse)),
  "duplicate_ids": one_of(*pool_check.DUPLICATES),
  "duplicate_rows": one_of(*pool_check.DUPLICATES),
  "source": all_of(name, parsed(sources.make_finder)),
  "long_rows": one_of(*pool_check.LONG_ROWS),
  "max_pixels": integer(1),
  "max_images": optional(integer(0)),
  "video_frames": optional(integer(1)),
  "most_aside": SHARE,
  "most_lost": SHARE,
  "demo.rows": integer(0),
  "demo.seed": integer(0, MOST_SEED),
  "demo.wrong": SHARE,
  "demo.misaligned": SHARE,
  "demo.duplicates": SHARE,
  "demo.questions": integer(1),
}

MODEL: dict[str, Check] = {
  "path": name,
  "dtype": one_of(*base_model.DTYPES),
  "remat": one_of(*REMAT),
  "attention": one_of(*ATTENTION),
  "conversation": one_of(conversation.AUTO_TEMPLATE, *conversation.TEMPLATES),
  "system": optional(text),
  "row_system": flag,
  "content_specials": parsed(read_choice),
  "box_form": one_of(box_forms.AUTO, *box_forms.BOX_FORMS),
  "chat_date": parsed(read_date),
  "pad_images": flag,
  "max_tiles": optional(integer(1)),
  "resize_pixels": optional(integer(1)),
  "max_length": integer(1, MOST_TOKENS),
}

SCORE: dict[str, Check] = {
  "model": optional(name),
  "table": optional(name),
  "reference": optional(name),
  "signals": _signals,
  "row_length": integer(1, MOST_TOKENS),
  "batch_rows": integer(1),
  "part_rows": integer(1),
  "share": flag,
  "threads": integer(0),
}

_BOUND = parsed(lambda value: SelectOptions(bound=read_bound(value)))
_OPTIONS = (
  *("kl_weight", "groups", "clusters", "strata", "tempering", "duplicates"),
  *("floor", "cap", "most", "least", "within", "temperature"),
)
SELECT: dict[str, Check] = {
  "strategy": all_of(name, parsed(find_strategy)),
  **{option: _option(option) for option in _OPTIONS},
  "budget": _amount,
  "signal": name,
  "normalise": name,
  "target": one_of(*TARGETS),
  "target_shares": mapping,
  "like": ids,
  "bound": _BOUND,
  "competence": SHARE,
  "visual": flag,
  "force_in": ids,
  "leave_out": ids,
  "reference": ids,
  "most_missing": SHARE,
  "sweep.budgets": list_of(_amount),
  "sweep.kl_weights": list_of(_written_option("kl_weight")),
  "search.candidates": _candidates,
  "search.strategy": list_of(lambda key, value: LOOKUP.find(value, key, "has")),
  "search.signal": texts,
  "search.kl_weight": list_of(_written_option("kl_weight")),
  "search.groups": list_of(_option("groups")),
  "search.tempering": list_of(_written_option("tempering")),
  "search.bound": list_of(_BOUND),
  "search.development": parsed(held_out.parse),
  "search.images": texts,
  "search.cost": number(0, 10, "()"),
  "search.steps": optional(integer(1)),
  "search.level": number(0, 1, "()"),
  "search.halving": integer(2),
  "rounds": integer(1),
  "control": flag,
}

EVALUATE: dict[str, Check] = {
  "tasks": all_of(texts, parsed(tasks.parse_tasks)),
  "images": texts,
  "metrics": _metrics,
  "allow_leakage": flag,
  "rules": _rules,
  "limit": integer(0),
  "batch": integer(1),
  "max_new_tokens": integer(1),
}

COMPARE: dict[str, Check] = {
  "strategies": list_of(
    lambda key, value: comparison_plan.check_strategy(value, key), least=1
  ),
  "variants": mapping,
  "published": parsed(published.read_published),
  "budgets": list_of(lambda key, value: published.parse_budget(value, key), least=1),
  "seeds": list_of(lambda key, value: comparison_plan.read_seed(value), least=1),
  "full": flag,
  "match": one_of(*comparison_plan.MATCHES),
  "fresh_pools": flag,
}

KEYS: dict[str, Check] = {
  "rng_seed": integer(0, MOST_SEED),
  **_named("pool", POOL),
  "prepare.shard_rows": integer(1),
  "prepare.workers": integer(0),
  **_named("model", MODEL),
  "mesh.data": _axis,
  "mesh.fsdp": _axis,
  "mesh.tensor": _axis,
  "log.trackers": all_of(texts, parsed(choose_trackers)),
  "align.rows": _rows,
  **_named("align", RECIPE),
  "seed.rows": _rows,
  **_named("seed", RECIPE),
  **_named("score", SCORE),
  **_named("select", SELECT),
  "export_selection.arm": folder_name,
  "export_selection.formats": all_of(texts, parsed(choose_forms)),
  **_named("tune", RECIPE),
  **_named("evaluate", EVALUATE),
  **_named("compare", COMPARE),
  "plan.topology": optional(list_of(lambda key, value: topology.parse(value), 1)),
  "plan.rows": optional(integer(1)),
  "plan.tokens": optional(number(1)),
  "plan.images": number(0, 1000),
  "plan.image_size": all_of(name, parsed(described_pool.read_size)),
  "plan.summary": optional(name),
  "plan.mfu": optional(number(0, 1, "(]")),
  "plan.price": optional(parsed(hours.read_prices)),
  "report.title": text,
}


def check_keys(cfg: Any) -> None:
  """Check the value of every key.

  Args:
    cfg: The config, or nested dicts with the same keys.

  Raises:
    InputError: Values are invalid; the message has one line for each such key.
  """
  faults = []
  for key, check in KEYS.items():
    value = cfg
    for part in key.split("."):
      value = value[part]
    try:
      check(key, value)
    except InputError as error:
      faults.append(str(error))
  if faults:
    raise InputError("\n".join(faults))
