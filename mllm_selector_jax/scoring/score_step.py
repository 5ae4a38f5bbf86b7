"""Compiles the scoring step: packed rows to token signals and embeddings."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mllm_selector_jax import losses
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.scoring import signals, token_signals
from mllm_selector_jax.types import Batch, Params


@functools.lru_cache(maxsize=8)  # compile the passes of a model once
def make_score_step(
  config: MllmConfig,
  seed: int = 0,
  whole: bool = True,
  plugged: tuple[tuple[str, Callable], ...] = (),
) -> Callable[[Params, Batch], dict[str, jax.Array]]:
  """Return the jitted scoring step.

  Args:
    config: The model's config.
    seed: Seed of the embedding's projection.
    whole: Whether to compute all signals and the embedding, or only "loss".
    plugged: Names and functions of plug-in signals, computed if `whole`.

  Returns:
    A function of (params, batch) to a dict of token signals [W, T] and, if `whole`,
    "embedding" [W, A, E].
  """
  matrix = signals.projection(config.decoder.width, seed) if whole else None
  cap = config.decoder.logit_cap

  def measure(logits, targets, hidden):
    if not whole:
      return token_signals.token_losses(logits, targets, hidden)
    plugged_values = token_signals.plugged_signals(plugged, logits, targets, hidden)
    own = token_signals.token_signals(logits, targets, hidden, cap)
    return own | plugged_values

  def step(params: Params, batch: Batch):
    positions, supervised = batch.predict, batch.predict.shape[1]
    if whole:
      positions = jnp.concatenate([positions, batch.answers], axis=1)
    states = mllm.hidden_states(config, params, batch, positions)
    states, embedding = states[:, :supervised], states[:, supervised:]
    head = mllm.head(config, params)
    out = losses.map_logits(measure, states, head, batch.targets, cap=cap)
    if not whole:
      return out
    embedding = embedding.astype(jnp.float32)
    if matrix is not None:
      embedding = jnp.matmul(embedding, matrix, precision="highest")
    return {**out, "embedding": embedding}

  return jax.jit(step)
