"""From a model directory's config.json, of any form, to our configuration."""

import os

from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.models.huggingface.model_parts import Parts, find_parts
from mllm_selector_jax.models.huggingface.processor import parts_image_options
from mllm_selector_jax.models.huggingface.wrong_kinds import refusing_wrong_kinds
from mllm_selector_jax.types import InputError


def read_config(
  path: str | os.PathLike,
  dtype: str = "float32",
  remat: str = "none",
  attention: str = "auto",
) -> MllmConfig:
  """The configuration of a model directory (or hub name).

  Args:
    path: a Hugging Face directory of one of `model_families`, or an own checkpoint of
      LLaVA or InternVL.
    dtype: of the computation.
    remat: what the backward pass recomputes; see `MllmConfig`.
    attention: the kernel; see `MllmConfig`.

  Raises:
    InputError: what is in config.json that we cannot do.
  """
  return parts_config(find_parts(path), dtype, remat, attention)


def parts_config(
  parts: Parts, dtype: str = "float32", remat: str = "none", attention: str = "auto"
) -> MllmConfig:
  """The configuration of a model made of these parts; see `read_config`."""
  with refusing_wrong_kinds(parts.decoder):
    return _parts_config(parts, dtype, remat, attention)


def _parts_config(parts: Parts, dtype: str, remat: str, attention: str) -> MllmConfig:
  whole = parts.config
  problems = []

  def attempt(function, *args, **kwargs):
    try:
      return function(*args, **kwargs)
    except InputError as error:
      problems.append(str(error).rstrip("."))

  family = find_family(whole)
  vision = attempt(family.read_tower, whole.vision_config)
  decoder = attempt(
    family.read_decoder, whole.text_config, tied=bool(whole.tie_word_embeddings)
  )
  fields = attempt(family.read, whole)
  if not problems:
    # Of the processor only what is done on the device matters here.
    options = parts_image_options(parts, pad=True)
    config = attempt(
      MllmConfig,
      vision=vision,
      decoder=decoder,
      **fields,
      image_mean=options.mean,
      image_std=options.std,
      dtype=dtype,
      remat=remat,
      attention=attention,
    )
  if problems:
    path = parts.decoder / "config.json"
    raise InputError(f"{path}: {'; '.join(problems)}.")
  return config
