"""Chooses the first centres of k-means: greedy k-means++ in rounds of several picks."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

CANDIDATES = 32  # rows that are drawn in a round
PICKS = 8  # the rows that are picked of the candidates of a round
FULL = jax.lax.Precision.HIGHEST  # near-ties would depend on errors of bf16 or TF32


@functools.partial(jax.jit, static_argnums=0)
def choose_first(
  clusters: int,
  sample: Float[Array, "n D"],
  rng: UInt32[Array, ""],
) -> Int[Array, " K"]:
  """Chooses rows of a sample as first centres (Arthur and Vassilvitskii, 2007).

  In the greedy form, rows are drawn in proportion to their squared distance to the
  nearest centre so far, and those are taken that lower the sum of distances most. Here
  `CANDIDATES` rows are drawn at a time, and `PICKS` of them are taken one after the
  other, since a product with one or two rows takes as long as one with many.

  Args:
    clusters: K.
    sample: rows of the pool, in drawn order.
    rng: seed of the draws.

  Returns:
    The places of the centres in the sample.
  """
  norms = jnp.sum(jnp.square(sample), 1)
  rounds = max(1, -(-(clusters - 1) // PICKS))
  draws = jax.random.uniform(jax.random.key(rng), (rounds, CANDIDATES))

  def distances_to(picked):
    product = jnp.dot(sample[picked], sample.T, precision=FULL)
    return jnp.maximum(norms[picked][:, None] - 2 * product + norms[None, :], 0)

  def draw(index, nearest):
    below = jnp.cumsum(nearest)
    place = jnp.searchsorted(below, draws[index] * below[-1], side="right")
    return jnp.minimum(place, len(sample) - 1)

  def pick(_, state):
    nearest, distances, places, candidates = state
    after = jnp.minimum(nearest[None, :], distances)
    best = jnp.argmin(after.sum(1))
    places = jnp.append(places[1:], candidates[best])
    return after[best], distances, places, candidates

  def step(index, state):
    picked, nearest = state
    candidates = draw(index, nearest)
    start = nearest, distances_to(candidates), jnp.zeros(PICKS, jnp.int32), candidates
    nearest, _, places, _ = jax.lax.fori_loop(0, PICKS, pick, start)
    return jax.lax.dynamic_update_slice(picked, places, (1 + index * PICKS,)), nearest

  # The rows are in drawn order, so the first row is a random one.
  picked = jnp.zeros(1 + rounds * PICKS, jnp.int32)
  nearest = distances_to(picked[:1])[0]
  return jax.lax.fori_loop(0, rounds, step, (picked, nearest))[0][:clusters]
