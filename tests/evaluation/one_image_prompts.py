"""Prompts of one image or none, for tests of generation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from benchmarks.pool_columns import place_image
from mllm_selector_jax.evaluation import generation
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import Sample


def make_prompt(tokens: Int[np.ndarray, " L"], config: MllmConfig) -> Sample:
  """A prompt whose run of image tokens, if there is one, is an image."""
  nothing = np.zeros(len(tokens), bool)
  turns = np.full(len(tokens), -1, np.int32)
  sample = Sample(tokens.astype(np.int32), nothing, turns, nothing, False)
  return place_image(sample, config.image_token, config.patches)


def make_prompts(
  prompts: Sequence[Int[np.ndarray, " L"]],
  pixels: Sequence[UInt8[np.ndarray, "S S 3"] | None],
  config: MllmConfig,
  rows: int,
) -> generation.Prompts:
  """A batch of prompts, given as tokens and the pixels of their images."""
  samples = [make_prompt(tokens, config) for tokens in prompts]
  tiles = [() if image is None else (image[None],) for image in pixels]
  return generation.make_prompts(samples, tiles, config, rows)
