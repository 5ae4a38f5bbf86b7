"""The optimizer: AdamW, cosine with warm-up, clipping by the global norm."""

import dataclasses

import optax

from mllm_selector_jax.types import InputError

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


def make_schedule(options: OptimizerOptions, steps: int) -> optax.Schedule:
  """Linear warm-up from 0, then a cosine to 0 at the last step."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=options.learning_rate,
    warmup_steps=max(1, round(options.warmup * steps)),
    decay_steps=max(2, steps),
  )


def make_optimizer(
  options: OptimizerOptions, steps: int
) -> optax.GradientTransformation:
  """The transformation for a run of that many steps."""

  def decayed(params):
    import jax

    # Stacked layers add a leading axis: a norm's weights have two there.
    def matrix(path, leaf):
      stacked = any(getattr(key, "key", None) == "layers" for key in path)
      return leaf.ndim - stacked >= 2

    return jax.tree_util.tree_map_with_path(matrix, params)

  def of_projector(params):
    return {name: name == "projector" for name in params}

  # The schedules have one shape, so that a factor makes one of the other.
  own = options.projector_learning_rate
  factor = 1.0 if own is None else own / options.learning_rate
  return optax.chain(
    optax.clip_by_global_norm(options.clip),
    optax.adamw(
      make_schedule(options, steps),
      b1=options.b1,
      b2=options.b2,
      weight_decay=options.weight_decay,
      mask=decayed,
      mu_dtype=options.first_moment,
    ),
    optax.identity()
    if factor == 1.0
    else optax.masked(optax.scale(factor), of_projector),
  )
