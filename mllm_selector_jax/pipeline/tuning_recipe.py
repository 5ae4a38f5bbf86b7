"""The recipe of a fine-tune as a section of the config has it."""

from typing import Any

from mllm_selector_jax.types import InputError


def recipe_config(section: Any, steps: int | None = None) -> dict[str, Any]:
  """The part of the section that the result follows from, with steps for epochs."""
  config = dict(section.to_dict())
  # Micro-batches agree to rounding, as numbers of devices do.
  for name in ("threads", "save_every", "keep", "keep_best", "accumulate", "spike"):
    config.pop(name)
  if steps is not None:
    config["steps"] = steps
    del config["epochs"]
  return config


def check_section(section: Any, title: str) -> None:
  """Refuses a recipe whose settings, each right alone, do not go together."""
  if section.accumulate > section.batch:
    raise InputError(
      f"{title}: accumulate={section.accumulate} parts of a batch of {section.batch}"
      " samples; give as many at most."
    )
  if section.lora.rank and section.trainable not in ("decoder", "decoder_only"):
    raise InputError(
      f"{title}: lora.rank={section.lora.rank} with trainable={section.trainable!r};"
      " LoRA trains adapters of the decoder, so that trainable must be 'decoder' or"
      " 'decoder_only' and the rank 1 or more (0: no LoRA)."
    )
