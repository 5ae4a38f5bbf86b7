"""What a recipe may say of the optimizer and of what is trained, read without jax."""

import dataclasses

from mllm_selector_jax.types import InputError

TRAINABLE = {
  "projector": ("projector",),
  "decoder": ("projector", "decoder"),
  "all": ("vision", "projector", "decoder"),
}
MOMENTS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
  """The recipe of a fine-tune.

  Attributes:
    learning_rate: at its peak.
    warmup: share of the steps with a linearly rising rate.
    weight_decay: decoupled; not applied to vectors (norms, biases).
    b1, b2: Adam's decay rates.
    clip: largest global norm of the gradient.
    projector_learning_rate: the projector's own, at its peak; None is the same.
    first_moment: dtype that Adam's first moment is kept in, one of `MOMENTS`.
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
    own = self.projector_learning_rate
    if own is not None and not own > 0:
      raise InputError(f"projector_learning_rate={own}: it must be positive.")
    if self.first_moment not in MOMENTS:
      raise InputError(
        f"first_moment={self.first_moment!r} is not one of {', '.join(MOMENTS)}."
      )
    if not 0 <= self.warmup < 1:
      raise InputError(
        f"warmup={self.warmup}: a share of the steps, from 0 to below 1."
      )
