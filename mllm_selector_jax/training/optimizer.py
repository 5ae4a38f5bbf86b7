"""The optimizer: AdamW, a cosine schedule with warm-up, and global-norm clipping."""

import dataclasses

import optax

from mllm_selector_jax.types import InputError

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
    projector_learning_rate: the peak learning rate of the projector; None means
      `learning_rate`.
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


def make_schedule(options: OptimizerOptions, steps: int) -> optax.Schedule:
  """Returns a schedule of linear warm-up from 0, then cosine decay to 0 at `steps`."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=options.learning_rate,
    warmup_steps=max(1, round(options.warmup * steps)),
    decay_steps=max(2, steps),
  )


def make_optimizer(
  options: OptimizerOptions, steps: int
) -> optax.GradientTransformation:
  """Returns the gradient transformation for a run of `steps` steps."""

  def decay_mask(params):
    import jax

    # The leading axis of stacked layers does not count: there, the weights of a norm
    # have two axes.
    def is_matrix(path, leaf):
      stacked = any(getattr(key, "key", None) == "layers" for key in path)
      return leaf.ndim - stacked >= 2

    return jax.tree_util.tree_map_with_path(is_matrix, params)

  def projector_mask(params):
    return {name: name == "projector" for name in params}

  # Both schedules have the same form, so the projector's updates are only scaled.
  rate, projector_rate = options.learning_rate, options.projector_learning_rate
  factor = 1.0 if projector_rate is None else projector_rate / rate
  return optax.chain(
    optax.clip_by_global_norm(options.clip),
    optax.adamw(
      make_schedule(options, steps),
      b1=options.b1,
      b2=options.b2,
      weight_decay=options.weight_decay,
      mask=decay_mask,
      mu_dtype=options.first_moment,
    ),
    optax.identity()
    if factor == 1.0
    else optax.masked(optax.scale(factor), projector_mask),
  )
