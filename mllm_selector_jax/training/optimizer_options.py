"""Options of the optimizer and names of trainable sets, which are read without jax."""

import dataclasses

from mllm_selector_jax.types import InputError

TRAINABLE = {
  "projector": ("projector",),
  "decoder": ("projector", "decoder"),
  "decoder_only": ("decoder",),
  "all": ("vision", "projector", "decoder"),
}
MOMENTS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
  """Options of the optimizer.

  Attributes:
    learning_rate: the peak learning rate.
    warmup: the share of the steps in which the learning rate rises linearly.
    weight_decay: the decoupled weight decay, which is not applied to vectors (norms
      and biases).
    b1, b2: the decay rates of Adam's moments.
    clip: the global norm to which gradients are clipped.
    projector_learning_rate: the peak learning rate of the projector or of its
      adapters; None means `learning_rate`.
    first_moment: the dtype of Adam's first moment, one of `MOMENTS`.
  """

  learning_rate: float
  warmup: float = 0.03
  weight_decay: float = 0.0
  b1: float = 0.9
  b2: float = 0.999
  clip: float = 1.0
  projector_learning_rate: float | None = None
  first_moment: str = "float32"

  def __post_init__(self):
    if not self.learning_rate > 0 or not self.clip > 0:
      raise InputError(
        f"learning_rate={self.learning_rate}, clip={self.clip}: both must be positive."
      )
    projector_rate = self.projector_learning_rate
    if projector_rate is not None and not projector_rate > 0:
      raise InputError(
        f"projector_learning_rate={projector_rate}: it must be positive."
      )
    if self.first_moment not in MOMENTS:
      raise InputError(
        f"first_moment={self.first_moment!r} is not one of {', '.join(MOMENTS)}."
      )
    if not 0 <= self.warmup < 1:
      raise InputError(
        f"warmup={self.warmup}: it is a share of the steps, from 0 to below 1."
      )
