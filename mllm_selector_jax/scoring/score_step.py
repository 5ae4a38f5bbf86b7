"""One step of scoring: packed rows to token signals and embeddings, on the device."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mllm_selector_jax import losses
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.scoring import signals, token_signals
from mllm_selector_jax.types import Batch, Params


@functools.lru_cache(maxsize=8)  # passes of one model are compiled once
def make_score_step(
  config: MllmConfig,
  seed: int = 0,
  whole: bool = True,
  plugged: tuple[tuple[str, Callable], ...] = (),
) -> Callable[[Params, Batch], dict[str, jax.Array]]:
  """A jitted (params, batch) -> token signals [W, T] and "embedding" [W, A, E].

  Args:
    config: the model.
    seed: of the embedding's projection.
    whole: whether all is wanted, or "loss" alone.
    plugged: names and functions of plug-ins' signals, where all is wanted.
  """
  matrix = signals.projection(config.decoder.width, seed) if whole else None

  def measure(logits, targets, hidden):
    if not whole:
      return token_signals.token_losses(logits, targets, hidden)
    own = token_signals.plugged_signals(plugged, logits, targets, hidden)
    return token_signals.token_signals(logits, targets, hidden) | own

  def step(params: Params, batch: Batch):
    wanted, first = batch.predict, batch.predict.shape[1]
    if whole:
      wanted = jnp.concatenate([wanted, batch.answers], axis=1)
    states = mllm.hidden_states(config, params, batch, wanted)
    states, embedding = states[:, :first], states[:, first:]
    out = losses.map_logits(measure, states, mllm.head(config, params), batch.targets)
    if not whole:
      return out
    embedding = embedding.astype(jnp.float32)
    if matrix is not None:
      embedding = jnp.matmul(embedding, matrix, precision="highest")
    return {**out, "embedding": embedding}

  return jax.jit(step)
