"""The passes over the pool that signals need: what a pass feeds and what it gives.

A control pass feeds a sample with something left out, so that what is left out
shows in the loss. Its samples are never longer than the sample itself.
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
  """The sample of these tokens alone; their order and targets stay."""
  return sample._replace(
    tokens=sample.tokens[kept],
    supervised=sample.supervised[kept],
    turns=sample.turns[kept],
    asked=sample.asked[kept],
  )


def drop_image(sample: Sample, pixels: Pixels, image_token: int):
  """The sample without its image's tokens."""
  return keep_tokens(sample, sample.tokens != image_token), None


def drop_questions(sample: Sample, pixels: Pixels, image_token: int):
  """The sample without the tokens of its questions; image and answers stay."""
  return keep_tokens(sample, ~sample.asked), pixels


@dataclasses.dataclass(frozen=True)
class Pass:
  """One forward pass over the pool.

  Attributes:
    name: of its folder and, for a control pass, of the loss that signals read.
    model: "seed" or "reference".
    change: makes the fed sample and pixels; None feeds the sample as it is.
    images: whether the fed samples have their images.
    whole: whether every signal and the embedding are wanted, or the loss alone.
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


def list_passes(wanted: tuple[str, ...]) -> list[Pass]:
  """The passes that these signals need, the main one first."""
  needed = {signals.CONTROLS[name][0] for name in wanted if name in signals.CONTROLS}
  return [MAIN, *(control for name, control in CONTROLS.items() if name in needed)]


@dataclasses.dataclass(frozen=True)
class PassReader:
  """Reads rows as a pass feeds them.

  Attributes:
    reader: reads rows as they are.
    own: the pass.
  """

  reader: RowReader
  own: Pass

  @property
  def encoder(self) -> Any:
    return self.reader.encoder

  def read(self, row: int) -> tuple[Sample, Pixels]:
    sample, pixels = self.reader.read(row)
    if self.own.change is None:
      return sample, pixels
    return self.own.change(sample, pixels, self.encoder.image_token)
