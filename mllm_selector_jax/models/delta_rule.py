"""The gated delta rule over packed rows, chunk by chunk (Yang et al. 2024, 2412.06464).

A head holds a state, a matrix from keys to values. Each token lets it decay, corrects
what it answers to the token's key towards the token's value, and asks it its query. A
segment begins with an empty state, a branch with the one that its trunk ends with.
Branches follow their trunk before any other segment without a trunk does, as
data/packing/assembly.py lays them, so that one trunk's state at a time has to be kept.

Inside a chunk the corrections depend on each other through a triangular matrix, which
is inverted for all chunks at once; then one loop over chunks carries the states.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.attention import UNSEEN

SIZE = 64  # tokens of a chunk


class Chunks(NamedTuple):
  """Packed rows cut into N chunks of C tokens, and where each token goes on from.

  Attributes:
    follows: whether a token (row) goes on from another (column) of its chunk, or is it.
    continues: whether a token's segment goes on from the chunk before.
    branches: whether its segment is a branch whose trunk began in an earlier chunk;
      None: no segment is a branch.
    trunk: which is the chunk's last token of a segment that is no branch; -1: none is.
  """

  follows: Bool[Array, "B N C C"]
  continues: Bool[Array, "B N C"]
  branches: Bool[Array, "B N C"] | None
  trunk: Int[Array, "B N"] | None


def cut_rows(
  segments: Int[Array, "B L"], prefixes: Int[Array, "B L"] | None, size: int = SIZE
) -> Chunks:
  """Cuts rows into chunks.

  Args:
    segments, prefixes: as in `attention.Layout`.
    size: of a chunk, a power of two; rows are filled up with tokens of the segment that
      they end with, which will change nothing.
  """

  def cut(numbers):
    padded = jnp.pad(numbers, ((0, 0), (0, -numbers.shape[1] % size)), mode="edge")
    return padded.reshape(len(numbers), -1, size)

  own = cut(segments)
  before = jnp.pad(own[:, :-1, -1], ((0, 0), (1, 0)))[..., None]
  continues = (own == before) & (own > 0)
  place = jnp.arange(size)
  later = place[:, None] >= place[None]
  same = (own[..., :, None] == own[..., None, :]) & (own > 0)[..., None]
  if prefixes is None:
    follows = same & later[None, None] | (place[:, None] == place[None])[None, None]
    return Chunks(follows, continues, None, None)
  above = cut(prefixes)
  of_trunk = (above[..., :, None] == own[..., None, :]) & (above > 0)[..., None]
  follows = (same | of_trunk) & later[None, None]
  follows |= (place[:, None] == place[None])[None, None]
  first = own != jnp.concatenate([before, own[..., :-1]], axis=-1)
  begun = (of_trunk & first[..., None, :]).any(-1)
  branches = (above > 0) & ~continues & ~begun
  plain = (own > 0) & (above < 1)
  trunk = jnp.where(plain, place[None, None], -1).max(-1)
  return Chunks(follows, continues, branches, trunk)


def invert(lower: Float[Array, "... C C"]) -> Float[jax.Array, "... C C"]:
  """The inverse of a triangular matrix with ones on its diagonal.

  Inverses of blocks are joined to those of blocks twice as large, each of which is a
  part of the whole inverse, so that nothing grows that is to cancel out later.

  Args:
    lower: what it has below the diagonal; the rest is not read. C is a power of two.
  """
  size = lower.shape[-1]
  inverse = jnp.ones((*lower.shape[:-2], size, 1, 1), lower.dtype)
  while (side := inverse.shape[-1]) < size:
    count = size // (2 * side)
    blocks = lower.reshape(*lower.shape[:-2], count, 2, side, count, 2, side)
    blocks = blocks[..., :, 1, :, :, 0, :]
    blocks = jnp.moveaxis(jnp.diagonal(blocks, axis1=-4, axis2=-2), -1, -3)
    pairs = inverse.reshape(*lower.shape[:-2], count, 2, side, side)
    first, second = pairs[..., 0, :, :], pairs[..., 1, :, :]
    below = -second @ (blocks @ first)
    upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
    lowered = jnp.concatenate([below, second], axis=-1)
    inverse = jnp.concatenate([upper, lowered], axis=-2)
  return inverse[..., 0, :, :]


def scan(
  query: Float[Array, "B L Hk d"],
  key: Float[Array, "B L Hk d"],
  value: Float[Array, "B L Hv v"],
  decay: Float[Array, "B L Hv"],
  write: Float[Array, "B L Hv"],
  chunks: Chunks,
) -> tuple[Float[jax.Array, "B L Hv v"], Float[jax.Array, "B Hv d v"]]:
  """What the queries are answered, and the states that rows end with.

  Value heads share key heads evenly. All is computed in the type of the arrays, with
  products of full precision. Over a mesh each device computes its rows and heads.

  Args:
    query, key: of length 1, but that queries may be scaled.
    value: what is to be answered to the key.
    decay: logarithm of what is left of the state, at most 0.
    write: which share of a difference is corrected.
    chunks: of the rows, from `cut_rows`.
  """
  batch, length, heads, width = value.shape
  shared = key.shape[2]
  count, size = chunks.continues.shape[1:]

  def cut(x):
    """[B L H ...] to [B N Hk (R) C ...]."""
    rest = ((0, 0),) * (x.ndim - 2)
    filled = jnp.pad(x, ((0, 0), (0, count * size - length), *rest))
    filled = filled.reshape(batch, count, size, shared, -1, *x.shape[3:])
    return jnp.moveaxis(filled, 2, 4)

  # Of key heads, R is 1.
  arrays = [cut(x) for x in (query, key, value, decay, write)]
  axes = [("batch", None, "kv_heads", *(None,) * (x.ndim - 3)) for x in arrays]
  parts, tree = jax.tree.flatten(chunks)
  axes += [("batch", *(None,) * (x.ndim - 1)) for x in parts]

  def run(*arrays):
    return _run(*arrays[:5], jax.tree.unflatten(tree, arrays[5:]))

  out = ("batch", None, "kv_heads", None, None, None)
  state_axes = ("batch", "kv_heads", None, None, None)
  with jax.default_matmul_precision("highest"):
    mixed, state = sharding.map_shards(run, [*arrays, *parts], axes, (out, state_axes))
  mixed = jnp.moveaxis(mixed, 4, 2).reshape(batch, count * size, heads, width)
  return mixed[:, :length], state.reshape(batch, heads, -1, width)


def _run(
  query: Float[Array, "B N Hk 1 C d"],
  key: Float[Array, "B N Hk 1 C d"],
  value: Float[Array, "B N Hk R C v"],
  decay: Float[Array, "B N Hk R C"],
  write: Float[Array, "B N Hk R C"],
  chunks: Chunks,
) -> tuple[Float[jax.Array, "B N Hk R C v"], Float[jax.Array, "B Hk R d v"]]:
  """`scan` of arrays that are cut into chunks."""
  size = value.shape[-2]
  follows = chunks.follows[:, :, None, None]
  # Of each token, since its chunk or, if that is later, its first ancestor began.
  total = jnp.matmul(follows.astype(decay.dtype), decay[..., None])[..., 0]
  left = jnp.exp(jnp.where(follows, total[..., None] - total[..., None, :], UNSEEN))
  strict = follows & ~jnp.eye(size, dtype=bool)[None, None, None, None]
  both = jnp.concatenate([query, key], axis=-2)
  near, alike = jnp.split(both @ jnp.swapaxes(key, -1, -2), 2, axis=-2)
  near = near * left
  inverse = invert(jnp.where(strict, write[..., None] * alike * left, 0))
  kept = jnp.exp(total)

  def since(mask):
    return jnp.where(mask[:, :, None, None], kept, 0)

  def from_last(place):
    """What each token leaves in the state after that place's, and the place's own."""
    index = jnp.maximum(place, 0)[:, :, None, None, None]
    of_tokens = jnp.take_along_axis(left, index[..., None], axis=-2)[..., 0, :]
    found = (place >= 0)[:, :, None, None, None]
    return jnp.where(found, of_tokens, 0), index

  own = since(chunks.continues)
  last = jnp.full(chunks.continues.shape[:2], size - 1)
  leaves, index = from_last(last)
  steps = [both, value, write, near, inverse, own, leaves, own[..., -1]]
  if chunks.branches is not None and chunks.trunk is not None:
    of_trunk = since(chunks.branches)
    leaves, index = from_last(chunks.trunk)
    found = (chunks.trunk >= 0)[:, :, None, None]
    stays = jnp.take_along_axis(own, index, axis=-1)[..., 0]
    steps += [of_trunk, of_trunk[..., -1], leaves, jnp.where(found, stays, 0), ~found]

  @jax.checkpoint
  def step(states, parts):
    both, value, write, near, inverse, own, leaves, goes_on, *more = parts
    state, trunk = states
    answers = (both @ state) * jnp.concatenate([own, own], -1)[..., None]
    if more:
      branches, branched, leaves_trunk, stays, kept_trunk = more
      scale = jnp.concatenate([branches, branches], -1)[..., None]
      answers = answers + (both @ trunk) * scale
    asked, held = jnp.split(answers, 2, axis=-2)
    new = inverse @ (write[..., None] * (value - held))
    mixed = asked + near @ new
    turned = jnp.swapaxes(both[..., size:, :], -1, -2)

    def grow(leaves):
      return turned @ (leaves[..., None] * new)

    following = state * goes_on[..., None, None] + grow(leaves)
    if more:
      following = following + trunk * branched[..., None, None]
      # A trunk is a segment of its own: it goes on from the state, or from nothing.
      ended = state * stays[..., None, None] + grow(leaves_trunk)
      trunk = jnp.where(kept_trunk[..., None, None], trunk, ended)
    return (following, trunk), mixed

  shape = (len(value), *value.shape[2:4], key.shape[-1], value.shape[-1])
  state = jnp.zeros(shape, value.dtype)
  states = state, state if len(steps) > 8 else None
  parts = [jnp.moveaxis(part, 1, 0) for part in steps]
  (state, _), mixed = jax.lax.scan(step, states, parts)
  return jnp.moveaxis(mixed, 0, 1), state


def advance(
  state: Float[Array, "B Hv d v"],
  query: Float[Array, "B Hk d"],
  key: Float[Array, "B Hk d"],
  value: Float[Array, "B Hv v"],
  decay: Float[Array, "B Hv"],
  write: Float[Array, "B Hv"],
) -> tuple[Float[jax.Array, "B Hv v"], Float[jax.Array, "B Hv d v"]]:
  """`scan` over one more token a row: what its query is answered, and new states."""
  shared = state.shape[1] // key.shape[1]
  query, key = (jnp.repeat(x, shared, axis=1)[..., None, :] for x in (query, key))
  with jax.default_matmul_precision("highest"):
    state = jnp.exp(decay)[..., None, None] * state
    held = (key @ state)[..., 0, :]
    new = write[..., None] * (value - held)
    state = state + jnp.swapaxes(key, -1, -2) * new[..., None, :]
    return (query @ state)[..., 0, :], jnp.asarray(state)
