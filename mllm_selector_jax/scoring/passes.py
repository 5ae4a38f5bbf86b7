"""The passes over the pool that signals need: what a pass feeds and what it gives.

A control pass feeds a sample with something left out, so that what is left out
shows in the loss. Its samples are never longer than the sample itself.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

from mllm_selector_jax.data.packing.assembly import Example
from mllm_selector_jax.data.packing.loader import RowReader
from mllm_selector_jax.scoring import signals
from mllm_selector_jax.types import Sample


def keep_tokens(sample: Sample, kept: Bool[np.ndarray, " L"]) -> Sample:
  """The sample of these tokens alone; their order and targets stay.

  All tokens of an image are kept, or none.
  """
  before = np.concatenate([[0], np.cumsum(kept)])
  return sample._replace(
    tokens=sample.tokens[kept],
    supervised=sample.supervised[kept],
    turns=sample.turns[kept],
    asked=sample.asked[kept],
    images=tuple(
      image._replace(start=int(before[image.start]))
      for image in sample.images
      if kept[image.start]
    ),
  )


def drop_images(example: Example) -> Example:
  """The example without its images, and without the marks around them."""
  sample, _ = example
  kept = np.ones(len(sample.tokens), bool)
  for image in sample.images:
    kept[image.start : image.stop] = False
  return keep_tokens(sample, kept), ()


def drop_questions(example: Example) -> Example:
  """The example without the tokens of its questions; images and answers stay."""
  sample, tiles = example
  return keep_tokens(sample, ~sample.asked), tiles


@dataclasses.dataclass(frozen=True)
class Pass:
  """One forward pass over the pool.

  Attributes:
    name: of its folder and, for a control pass, of the loss that signals read.
    model: "seed" or "reference".
    change: makes the example that is fed; None feeds it as it is.
    images: whether the fed samples have their images.
    whole: whether every signal and the embedding are wanted, or the loss alone.
  """

  name: str
  model: str = "seed"
  change: Callable[[Example], Example] | None = None
  images: bool = True
  whole: bool = False


MAIN = Pass("main", whole=True)
CONTROLS = {
  "no_image": Pass("no_image", change=drop_images, images=False),
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

  def read(self, row: int) -> Example:
    example = self.reader.read(row)
    return example if self.own.change is None else self.own.change(example)
