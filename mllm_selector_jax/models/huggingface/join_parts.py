"""One model directory from a decoder, a vision tower and a projector."""

import os
from pathlib import Path

from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface.model_config import parts_config
from mllm_selector_jax.models.huggingface.model_families.llava_original import Select
from mllm_selector_jax.models.huggingface.model_parts import find_parts, join_parts
from mllm_selector_jax.models.huggingface.reader import parts_params
from mllm_selector_jax.models.huggingface.source import find_model
from mllm_selector_jax.models.huggingface.writer import write_parts
from mllm_selector_jax.types import InputError


def assemble(
  out: str | os.PathLike,
  decoder: str | os.PathLike,
  vision: str | os.PathLike | None = None,
  projector: str | os.PathLike | None = None,
  feature_layer: int = -2,
  select: Select | None = None,
  chat_template: str | None = None,
  seed: int = 0,
) -> MllmConfig:
  """Writes a base directory in LLaVA form, made of parts.

  The vocabulary grows by `<image>` and, where there is no padding token, `<pad>`;
  the new rows of embedding and head are the mean of the known ones, as LLaVA has
  it. Images are padded to a square, as LLaVA's are.

  Args:
    out: made if missing; must hold no model yet.
    decoder: directory or hub name, such as lmsys/vicuna-7b-v1.5; or, without
      `vision`, one of LLaVA's own checkpoints, which name their tower.
    vision: directory or hub name, such as openai/clip-vit-large-patch14-336.
    projector: directory or safetensors file with its weights; None draws them.
    feature_layer, select: of MllmConfig.
    chat_template: replaces the decoder's.
    seed: of a drawn projector.

  Returns:
    The configuration, as `read_config` reads it from `out`.

  Raises:
    InputError: parts that are missing, do not fit, or cannot be run.
  """
  out = Path(out)
  if (out / "config.json").exists():
    raise InputError(f"{out} holds a model already; give another directory.")
  if vision is None:
    parts = find_parts(decoder)
  else:
    source = None
    if projector is not None:
      source = Path(projector) if Path(projector).is_file() else find_model(projector)
    parts = join_parts(
      find_model(decoder),
      find_model(vision),
      source,
      feature_layer=feature_layer,
      select=select,
    )
  config = parts_config(parts)
  params = parts_params(parts, config, seed=seed)
  write_parts(out, config, params, parts, chat_template=chat_template)
  return parts_config(find_parts(out))
