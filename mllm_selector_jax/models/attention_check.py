"""The first batch decides whether a fast attention kernel may be used.

A kernel that is wrong does not crash: it ignores a mask, and every loss is a
little off. So it is held against plain XLA, on the machine and the rows at hand.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import attention, mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import Batch, Params

# How far vectors may be apart, relative to their length: of one attention, where
# rounding gives a twentieth to a quarter of that and a key too many about 1; and
# of the hidden states, where it grows with the layers (docs/results/parity.md).
TOLERANCES = {
  "float32": (1e-5, 1e-4),
  "bfloat16": (2e-2, 2e-1),
  "float64": (1e-5, 1e-4),  # splash accumulates in float32
}


def choose_kernel(
  config: MllmConfig, params: Params, batch: Batch | None, warn: Callable[[str], None]
) -> MllmConfig:
  """The config with the attention kernel that may be used.

  To be called once, before the first step, in the mesh's context. In a run of
  several processes all call it, and come to the same answer.

  Args:
    config: whose `attention` says what to try.
    params: of the model.
    batch: the first one, as the step will get it; None will do for plain XLA.
    warn: told why the fast kernel is not used, where it is not.
  """
  kernel = wanted_kernel(config)
  plain = dataclasses.replace(config, attention="xla")
  if kernel == "xla":
    return plain
  fast = dataclasses.replace(config, attention=kernel)
  assert batch is not None, "a fast kernel is checked on a batch"
  # Outside of `try`: what fails here, fails in the run as well.
  wanted = run_sample(plain, params, batch)
  try:
    found = run_sample(fast, params, batch)
    differences = [
      float(relative_distance(*pair)) for pair in zip(found, wanted, strict=True)
    ]
  except Exception as error:  # kernels raise whatever they like
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    warn(f"attention {kernel!r} cannot be run here, using 'xla': {reason}")
    return plain
  for place, difference, most in zip(
    ("one attention", "hidden states"),
    differences,
    TOLERANCES[config.dtype],
    strict=True,
  ):
    if not difference <= most:  # a NaN is not, either
      warn(
        f"attention {kernel!r} differs from 'xla' on the first batch, using 'xla':"
        f" {place} by {difference:.1e}, where {most:.0e} is rounding."
      )
      return plain
  return fast


def wanted_kernel(config: MllmConfig) -> str:
  """The kernel to be checked; "xla" needs no check, and so no batch."""
  kernel = config.attention
  return attention.find_fast_kernel(config.dtype) if kernel == "auto" else kernel


def run_sample(
  config: MllmConfig, params: Params, batch: Batch
) -> tuple[Float[Array, "n L H d"], Float[Array, "n T D"]]:
  """`_sample`, compiled for this config."""
  # A jit of its own, since it runs once and holds two programs of the model.
  # The key is an argument: the compiler would fold what a constant one draws.
  key = jax.random.key(0)
  return jax.jit(functools.partial(_sample, config))(params, batch, key)


def _sample(
  config: MllmConfig, params: Params, batch: Batch, key: Array
) -> tuple[Float[Array, "n L H d"], Float[Array, "n T D"]]:
  """One attention of drawn vectors, and the model's hidden states that count.

  On few rows: XLA holds the scores of all pairs of tokens, which is why there
  are fast kernels.
  """
  batch = _pick_rows(batch)
  decoder = config.decoder
  heads = (decoder.heads, decoder.kv_heads, decoder.kv_heads)
  # Drawn, so that every key weighs something: one too many shows.
  rows = batch.segments.shape
  drawn = [
    jax.random.normal(key, (*rows, many, decoder.head_dim), config.dtype)
    for key, many in zip(jax.random.split(key, 3), heads, strict=True)
  ]
  layout = attention.Layout(
    batch.segments, batch.positions, batch.prefixes, decoder.window
  )
  with mllm.precision(config):
    mixed = attention.make_attend(config.attention, layout)(*drawn)
  states = mllm.hidden_states(config, params, batch, batch.predict)
  # What padding sees, and what nobody is scored by, may differ.
  return (
    jnp.where(batch.segments[..., None, None] > 0, mixed, 0),
    jnp.where(batch.weights[..., None] > 0, states, 0),
  )


def _pick_rows(batch: Batch) -> Batch:
  """The row of most segments of each row shard; without a mesh of the batch."""
  mesh = jax.sharding.get_abstract_mesh()
  ways = 1 if mesh.empty else sharding.row_ways(mesh)
  if len(batch.segments) % ways:
    ways = 1
  crowded = batch.segments.max(1).reshape(ways, -1).argmax(1)

  def pick(x):
    shards = x.reshape(ways, -1, *x.shape[1:])
    return shards[jnp.arange(ways), crowded]

  return jax.tree.map(pick, batch)


@jax.jit
def relative_distance(
  found: Float[Array, "... D"], wanted: Float[Array, "... D"]
) -> Float[Array, ""]:
  """The largest distance of a vector from the wanted one, relative to its length."""
  found, wanted = (x.astype(jnp.float32) for x in (found, wanted))
  length = jnp.linalg.norm(wanted, axis=-1)
  distance = jnp.linalg.norm(found - wanted, axis=-1)
  return (distance / jnp.maximum(length, 1e-30)).max()
