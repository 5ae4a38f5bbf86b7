"""The optimizer: AdamW, cosine with warm-up, clipping by the global norm."""

import optax

from mllm_selector_jax.training.optimizer_options import OptimizerOptions


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
