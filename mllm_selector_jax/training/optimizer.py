"""The optimizer: AdamW, a cosine schedule with warm-up, and global-norm clipping."""

import optax

from mllm_selector_jax.training.optimizer_options import OptimizerOptions


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
    mask = {name: name == "projector" for name in params}
    adapter = params.get("adapter")
    if isinstance(adapter, dict) and "projector" in adapter:
      mask["adapter"] = {name: name == "projector" for name in adapter}
    return mask

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
