"""Defines the passes over the pool that signals need.

A control pass feeds each sample with a part left out; the change in the loss measures
what this part contributes. The changed sample is never longer than the original.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from mllm_selector_jax.data.packing.loader import RowReader
from mllm_selector_jax.scoring import signals
from mllm_selector_jax.types import Sample

Pixels = UInt8[np.ndarray, "S S 3"] | None


def keep_tokens(sample: Sample, kept: Bool[np.ndarray, " L"]) -> Sample:
  """Return a sample with only the marked tokens; their order and targets stay."""
  return sample._replace(
    tokens=sample.tokens[kept],
    supervised=sample.supervised[kept],
    turns=sample.turns[kept],
    asked=sample.asked[kept],
  )


def drop_image(sample: Sample, pixels: Pixels, image_token: int):
  """Return the sample without the tokens of its image, and no pixels."""
  return keep_tokens(sample, sample.tokens != image_token), None


def drop_questions(sample: Sample, pixels: Pixels, image_token: int):
  """Return the sample without the tokens of its questions; the rest stays."""
  return keep_tokens(sample, ~sample.asked), pixels


@dataclasses.dataclass(frozen=True)
class Pass:
  """One forward pass over the pool.

  Attributes:
    name: Name of its folder and, for a control pass, of the loss that signals read.
    model: The model that is run, "seed" or "reference".
    change: Maps a sample, its pixels and the image token to the sample and pixels
      that are fed; None feeds the sample unchanged.
    images: Whether the fed samples have their images.
    whole: Whether to compute all signals and the embedding, or only the loss.
  """

  name: str
  model: str = "seed"
  change: Callable[..., tuple[Sample, Pixels]] | None = None
  images: bool = True
  whole: bool = False


MAIN = Pass("main", whole=True)
CONTROLS = {
  "no_image": Pass("no_image", change=drop_image, images=False),
  "no_question": Pass("no_question", change=drop_questions),
  "reference": Pass("reference", model="reference"),
}


def list_passes(names: tuple[str, ...]) -> list[Pass]:
  """Return the passes that some signals need, the main pass first."""
  needed = {signals.CONTROLS[name][0] for name in names if name in signals.CONTROLS}
  return [MAIN, *(control for name, control in CONTROLS.items() if name in needed)]


@dataclasses.dataclass(frozen=True)
class PassReader:
  """Reads rows as a pass feeds them.

  Attributes:
    reader: Reads unchanged rows.
    pass_spec: The pass.
  """

  reader: RowReader
  pass_spec: Pass

  @property
  def encoder(self) -> Any:
    return self.reader.encoder

  def read(self, row: int) -> tuple[Sample, Pixels]:
    sample, pixels = self.reader.read(row)
    if self.pass_spec.change is None:
      return sample, pixels
    return self.pass_spec.change(sample, pixels, self.encoder.image_token)
