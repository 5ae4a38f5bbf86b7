"""Defines the passes over the pool that signals need.

A control pass feeds each sample with a part left out; the change in the loss measures
what this part contributes. The changed sample is never longer than the original.
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
  """Return a sample with only the marked tokens; their order and targets stay.

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
  """Return the example without its images, and without the marks around them."""
  sample, _ = example
  kept = np.ones(len(sample.tokens), bool)
  for image in sample.images:
    kept[image.start : image.stop] = False
  return keep_tokens(sample, kept), ()


def drop_questions(example: Example) -> Example:
  """Return the example without the tokens of its questions; the rest stays."""
  sample, tiles = example
  return keep_tokens(sample, ~sample.asked), tiles


@dataclasses.dataclass(frozen=True)
class Pass:
  """One forward pass over the pool.

  Attributes:
    name: Name of its folder and, for a control pass, of the loss that signals read.
    model: The model that is run, "seed" or "reference".
    change: Maps an example to the one that is fed; None feeds it unchanged.
    images: Whether the fed samples have their images.
    questions: Whether the fed samples have their questions.
    whole: Whether to compute all signals and the embedding, or only the loss.
  """

  name: str
  model: str = "seed"
  change: Callable[[Example], Example] | None = None
  images: bool = True
  questions: bool = True
  whole: bool = False


MAIN = Pass("main", whole=True)
CONTROLS = {
  "no_image": Pass("no_image", change=drop_images, images=False),
  "no_question": Pass("no_question", change=drop_questions, questions=False),
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

  def read(self, row: int) -> Example:
    example = self.reader.read(row)
    change = self.pass_spec.change
    return example if change is None else change(example)
