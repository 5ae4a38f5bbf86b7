"""What the readers of transformers configs share: how fields are checked and chosen."""

from collections.abc import Callable
from typing import Any

from mllm_selector_jax.types import InputError

_SCALED = (
  "whose embeddings version 4 of transformers multiplies together with the features of"
  " images, and version 5 without them, so that one checkpoint would be two models"
)
# Decoders and towers that look like one of the others, with why they cannot be run.
REFUSED = {
  "gemma": f"{_SCALED}; gemma3_text can be run",
  "gemma2": f"{_SCALED}, and which caps logits; gemma3_text can be run",
  "cohere": "whose attention and MLP read the same norm, side by side",
  "cohere2": "whose attention and MLP read the same norm, side by side",
  "smollm3": "some of whose layers turn no channels",
  "olmo2": "whose layers have norms behind attention and MLP, and none before them",
  "olmo3": "whose layers have norms behind attention and MLP, and none before them",
  "siglip2_vision_model": "the NaFlex form of SigLIP2, which reads images in their own"
  " aspect ratio; the SigLIP2 checkpoints of one resolution are siglip_vision_model,"
  " which can be run",
  "dinov2_with_registers": "which has register tokens; dinov2 can be run",
}


def require(name: str, config: Any, **wanted: Any) -> None:
  """Refuses what this package cannot run, all of it in one message."""
  found = {key: getattr(config, key, value) for key, value in wanted.items()}
  problems = [
    f"{name}.{key} is {found[key]!r}, only {value!r} can be run"
    for key, value in wanted.items()
    if found[key] != value
  ]
  if problems:
    raise InputError("; ".join(problems))


def read_side(config: Any, key: str) -> int:
  """The side of a square that a config gives as a number or as a pair."""
  value = getattr(config, key, None)
  sides = set(value) if isinstance(value, list | tuple) else {value}
  side = next(iter(sides), None)
  if len(sides) != 1 or not isinstance(side, int):
    raise InputError(f"vision_config.{key} must be a single number")
  return side


def find_reader(name: str, config: Any, readers: dict[str, Callable]) -> Callable:
  """The reader of a config of a decoder or a tower, by its model_type.

  Args:
    name: of the config in the whole's; "" where it is a file of its own.
    config: the transformers config.
    readers: by model_type.

  Raises:
    InputError: there is none.
  """
  kind = f"{name}.model_type" if name else "model_type"
  if (reason := REFUSED.get(config.model_type)) is not None:
    raise InputError(f"{kind} is {config.model_type!r}, {reason}")
  if config.model_type not in readers:
    raise InputError(
      f"{kind} is {config.model_type!r}; supported are {', '.join(readers)}"
    )
  return readers[config.model_type]
