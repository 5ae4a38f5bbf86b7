"""The recipe of a fine-tune as a section of the config has it."""

import dataclasses
from typing import Any

from mllm_selector_jax import listing
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from mllm_selector_jax.training.optimizer_options import TRAINABLE
from mllm_selector_jax.types import InputError

ALL_MODULES = "all"
DEFAULT_MODULES = ("decoder",)


def recipe_config(section: Any, steps: int | None = None) -> dict[str, Any]:
  """The part of the section that the result follows from, with steps for epochs."""
  config = dict(section.to_dict())
  # Micro-batches agree to rounding, as numbers of devices do.
  for name in ("threads", "save_every", "keep", "keep_best", "accumulate", "spike"):
    config.pop(name)
  # As artifacts have it that were made before there was this setting.
  modules = read_modules(config["lora"].pop("modules"))
  if config["lora"]["rank"] and modules != DEFAULT_MODULES:
    config["lora"]["modules"] = list(modules)
  if steps is not None:
    config["steps"] = steps
    del config["epochs"]
  return config


def read_modules(value: Any) -> tuple[str, ...]:
  """The modules that a setting names, in the order of `lora_options.MODULES`.

  Args:
    value: names separated by commas, or "all".

  Raises:
    InputError: a name is not known, or there is none.
  """
  names = listing.split_names(value)
  if names == [ALL_MODULES]:
    return tuple(MODULES)
  unknown = [name for name in names if name not in MODULES]
  if unknown or not names:
    raise InputError(
      f"{', '.join(unknown) or 'No name'} is no part of a model that can have LoRA"
      f" adapters; allowed are {', '.join(MODULES)}, several separated by commas, or"
      f" {ALL_MODULES}."
    )
  return tuple(name for name in MODULES if name in names)


def make_adapter(section: Any) -> LoraConfig | None:
  """The adapters that a recipe trains; None without LoRA."""
  if not section.lora.rank:
    return None
  modules = read_modules(section.lora.modules)
  return LoraConfig(section.lora.rank, section.lora.alpha, modules)


def add_adapter(config: MllmConfig, section: Any) -> MllmConfig:
  """The config of the model that a recipe trains."""
  return dataclasses.replace(config, lora=make_adapter(section))


def check_adapters(config: MllmConfig, cfg: Any) -> None:
  """Refuses adapters that a base cannot have, before anything long is begun."""
  for name in ("seed", "tune"):
    try:
      add_adapter(config, cfg[name])
    except InputError as error:
      raise InputError(f"{name}: {error}") from error


def check_section(section: Any, title: str) -> None:
  """Refuses a recipe whose settings, each right alone, do not go together."""
  if section.accumulate > section.batch:
    raise InputError(
      f"{title}: accumulate={section.accumulate} parts of a batch of {section.batch}"
      " samples; give as many at most."
    )
  if section.lora.rank:
    _check_adapter(section, title)


def _check_adapter(section: Any, title: str) -> None:
  """Refuses adapters of what is frozen, and a decoder or tower trained in full."""
  modules = read_modules(section.lora.modules)
  trained = [name for name in MODULES if MODULES[name] in TRAINABLE[section.trainable]]
  frozen = [name for name in modules if name not in trained]
  whole = [name for name in trained if name not in (*modules, "projector")]
  if not frozen and not whole:
    return
  problem = f"trainable freezes the {' and the '.join(frozen)}"
  if whole:
    problem = f"the {' and the '.join(whole)} would be trained without adapters"
  allowed = [
    name
    for name, parts in TRAINABLE.items()
    if {MODULES[module] for module in modules} <= set(parts)
    and set(parts) <= {"projector", *(MODULES[module] for module in modules)}
  ]
  advice = (
    f"With these modules trainable must be {' or '.join(map(repr, allowed))}"
    if allowed
    else "There is no value of trainable for these modules: add decoder to them"
  )
  raise InputError(
    f"{title}: lora.rank={section.lora.rank} with trainable={section.trainable!r} and"
    f" lora.modules={section.lora.modules!r}: {problem}. Decoder and tower are trained"
    " by adapters or not at all, the projector by adapters or whole."
    f" {advice}; lora.rank=0 is no LoRA."
  )
