"""Attention that visits only the blocks of keys that a block of queries may see.

Packed rows hold several samples, so most pairs of their tokens are masked. A row is
cut into blocks of `BLOCK` tokens. A loop over all blocks of queries contains one over
the blocks of keys that some of these queries may see, whose number is known only when
the program runs. Scores of one pair of blocks exist at a time, in the backward pass
as well, which computes them again.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array

BLOCK = 64  # tokens; on CPUs, 128 take up to 1.7 times as long
UNSEEN = -1e30  # large, but finite: a row of -inf would give NaN
ROWS = ("batch", None, None)
HEADS = ("batch", None, "kv_heads", None, None)


class Rule(NamedTuple):
  """What decides about pairs of tokens besides their segments.

  Attributes:
    causal: whether a query sees no later key, but those of its own image.
    window: positions that a query sees, its own included; None is all.
  """

  causal: bool
  window: int | None


class Tokens(NamedTuple):
  """What decides which tokens see each other; n tokens on the last axis.

  Attributes:
    segments: a number a segment, 0 for padding.
    prefixes: the trunk's segment, below 1 for none; None: no token has one.
    positions: in the sample; None where no window asks for them.
    places: in the row.
    images: a number an image, 0 for text; None where no token is told to see later ones
      of its image. Tokens of one image are of one segment.
  """

  segments: Int[Array, "*rows n"]
  prefixes: Int[Array, "*rows n"] | None
  positions: Int[Array, "*rows n"] | None
  places: Int[Array, "*rows n"]
  images: Int[Array, "*rows n"] | None = None


class Blocks(NamedTuple):
  """Packed rows cut into N blocks of t tokens, and the visits that they need.

  Attributes:
    tokens: of the blocks, [B N t].
    order: for each block of queries the blocks of keys, those to be visited first.
    counts: how many are to be visited.
  """

  tokens: Tokens
  order: Int[Array, "B N N"]
  counts: Int[Array, "B N 1"]


def find_pairs(
  query: Tokens, key: Tokens, rule: Rule
) -> Bool[jax.Array, "*rows queries keys"]:
  """Whether a query sees a key; each sees at least itself, and padding nothing else."""

  def pair(compare, one, other):
    return compare(one[..., :, None], other[..., None, :])

  def real(numbers):
    return jnp.where(numbers > 0, numbers, -1)

  seen = pair(jnp.equal, real(query.segments), key.segments)
  if query.prefixes is not None:
    seen |= pair(jnp.equal, real(query.prefixes), key.segments)
  if rule.causal:
    ordered = pair(jnp.greater_equal, query.places, key.places)
    if query.images is not None:
      ordered |= pair(jnp.equal, real(query.images), key.images)
    seen &= ordered
  if rule.window is not None:
    # Not places: other branches may lie between a trunk and its branch.
    assert query.positions is not None and key.positions is not None
    seen &= pair(jnp.subtract, query.positions, key.positions) < rule.window
  return seen | pair(jnp.equal, query.places, key.places)


def cut_rows(tokens: Tokens, rule: Rule) -> Blocks:
  """Cuts rows [B L] into blocks, the last one filled up with padding."""
  length = tokens.segments.shape[-1]
  size = min(BLOCK, length)

  def cut(numbers):
    if numbers is None:
      return None
    filled = jnp.pad(numbers, ((0, 0), (0, -length % size)))
    return filled.reshape(len(filled), -1, size)

  many = -(-length // size)
  places = jnp.arange(many * size).reshape(1, many, size)
  places = jnp.broadcast_to(places, (len(tokens.segments), many, size))
  segments, prefixes, positions, _, images = tokens
  blocks = Tokens(cut(segments), cut(prefixes), cut(positions), places, cut(images))
  visited = _find_visited(blocks, rule)
  order = jnp.argsort(~visited, axis=-1, stable=True).astype(jnp.int32)
  return Blocks(blocks, order, visited.sum(-1, keepdims=True, dtype=jnp.int32))


def _find_visited(blocks: Tokens, rule: Rule) -> Bool[jax.Array, "B N N"]:
  """Whether some query of a block may see some key of another.

  Judged by the lowest and the highest number in a block, which may say yes too
  often, but does so rarely where segments are numbered in the order of the row.
  """
  most = jnp.iinfo(jnp.int32).max

  def bounds(numbers):
    low = jnp.where(numbers > 0, numbers, most).min(-1)
    return low, numbers.max(-1)  # of no positive number: none is between these

  def meet(queries, keys):
    (low, high), (lowest, highest) = bounds(queries), bounds(keys)
    apart = low[..., :, None] > highest[..., None, :]
    return ~(apart | (high[..., :, None] < lowest[..., None, :]))

  visited = meet(blocks.segments, blocks.segments)
  if blocks.prefixes is not None:
    visited |= meet(blocks.prefixes, blocks.segments)
  if rule.window is not None:
    assert blocks.positions is not None
    first, last = blocks.positions.min(-1), blocks.positions.max(-1)
    visited &= first[..., :, None] - last[..., None, :] < rule.window
  number = jnp.arange(blocks.segments.shape[1])[None]
  query, key = number[..., :, None], number[..., None, :]
  if rule.causal:
    ordered = query >= key
    if blocks.images is not None:
      ordered = ordered | meet(blocks.images, blocks.images)
    visited &= ordered
  return visited | (query == key)


def attend(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  blocks: Blocks,
  rule: Rule,
) -> Float[jax.Array, "B L H d"]:
  """Attention; query heads share key-value heads evenly.

  The softmax is in float32 or better. Over a mesh each device runs loops over its
  rows and heads; the compiler by itself would gather them.

  Args:
    query, key, value: of the rows.
    blocks: of the same rows.
    rule: that `cut_rows` was given.
  """
  batch, length, heads, width = query.shape
  shared = key.shape[2]
  many, size = blocks.tokens.segments.shape[1:]

  def cut(x):
    """[B L H d] to [B N Hkv R d]: of each key-value head all queries, or keys."""
    filled = jnp.pad(x, ((0, 0), (0, many * size - length), (0, 0), (0, 0)))
    split = filled.reshape(batch, many, size, shared, -1, width)
    split = split.transpose(0, 1, 3, 4, 2, 5)
    return split.reshape(batch, many, shared, -1, width)

  parts = [cut(query * width**-0.5), cut(key), cut(value)]
  numbers, tree = jax.tree.flatten(blocks)

  def run(*arrays):
    return _mix(rule, jax.tree.unflatten(tree, arrays[3:]), *arrays[:3])

  axes = [HEADS] * 3 + [ROWS] * len(numbers)
  mixed = sharding.map_shards(run, [*parts, *numbers], axes, HEADS)
  mixed = mixed.reshape(batch, many, shared, heads // shared, size, width)
  mixed = mixed.transpose(0, 1, 4, 2, 3, 5)
  return mixed.reshape(batch, many * size, heads, width)[:, :length]


def _flatten(tree: Any) -> Any:
  """[B N ...] to [B*N ...]."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _list_visits(blocks: Blocks) -> tuple[Tokens, Int[Array, "n N"], Int[Array, " n"]]:
  """Tokens, order and counts of all rows' blocks, numbered through the rows."""
  rows, many, _ = blocks.order.shape
  before = many * jnp.arange(rows, dtype=jnp.int32)
  order = blocks.order + before[:, None, None]
  tokens, order, counts = _flatten((blocks.tokens, order, blocks.counts))
  return tokens, order, counts[:, 0]


def _pick(tree: Any, number: Int[Array, ""]) -> Any:
  return jax.tree.map(lambda x: x[number], tree)


def _make_bias(query: Tokens, key: Tokens, rule: Rule) -> Float[jax.Array, "t t"]:
  bias = jnp.where(find_pairs(query, key, rule), 0.0, UNSEEN).astype(jnp.float32)
  # Once for all heads: fused with the scores it would be computed for each.
  return jax.lax.optimization_barrier(bias)


def _multiply(one, other, contracted: tuple[int, int], dtype) -> jax.Array:
  """The product [Hkv ...] of [Hkv ...] and [Hkv ...] over these axes."""
  numbers = (((contracted[0],), (contracted[1],)), ((0,), (0,)))
  return jax.lax.dot_general(one, other, numbers, preferred_element_type=dtype)


def _score(query, key, bias) -> Float[jax.Array, "Hkv R t"]:
  wide = jnp.promote_types(query.dtype, jnp.float32)
  scores = _multiply(query, key, (2, 2), wide)
  grouped = scores.reshape(len(scores), -1, *bias.shape) + bias[None, None]
  return grouped.reshape(scores.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mix(
  rule: Rule,
  blocks: Blocks,
  query: Float[Array, "B N Hkv R d"],
  key: Float[Array, "B N Hkv t d"],
  value: Float[Array, "B N Hkv t d"],
) -> Float[jax.Array, "B N Hkv R d"]:
  """Attention of scaled queries, laid out in blocks."""
  return _run_forward(rule, blocks, query, key, value)[0]


def _run_forward(rule, blocks, query, key, value):
  """What `_mix` returns, and the logarithms of the queries' sums of exponentials."""
  tokens, order, counts = _list_visits(blocks)
  queries, keys, values = _flatten((query, key, value))
  wide = jnp.promote_types(query.dtype, jnp.float32)

  def run_block(number):
    own, own_tokens = queries[number], _pick(tokens, number)

    def visit(turn, state):
      highest, total, mixed = state
      other = order[number, turn]
      bias = _make_bias(own_tokens, _pick(tokens, other), rule)
      scores = _score(own, keys[other], bias)
      # Where nothing has been seen yet, all of `total` and `mixed` is wrong, and is
      # multiplied by 0 when something is: each query sees at least itself.
      raised = jnp.maximum(highest, scores.max(-1, keepdims=True))
      weights, kept = jnp.exp(scores - raised), jnp.exp(highest - raised)
      total = total * kept + weights.sum(-1, keepdims=True)
      added = _multiply(weights.astype(value.dtype), values[other], (2, 1), wide)
      return raised, total, mixed * kept + added

    column = (*own.shape[:2], 1)
    state = jnp.full(column, UNSEEN, wide), jnp.zeros(column, wide)
    state = *state, jnp.zeros(own.shape, wide)
    highest, total, mixed = jax.lax.fori_loop(0, counts[number], visit, state)
    return (mixed / total).astype(value.dtype), highest + jnp.log(total)

  mixed, logs = jax.lax.map(run_block, jnp.arange(len(queries)))
  return mixed.reshape(query.shape), logs


def _remember(rule, blocks, query, key, value):
  mixed, logs = _run_forward(rule, blocks, query, key, value)
  return mixed, (blocks, query, key, value, mixed, logs)


def _run_backward(rule, kept, gradient):
  """The gradients of query, key and value; the blocks have none."""
  blocks, query, key, value, mixed, logs = kept
  tokens, order, counts = _list_visits(blocks)
  queries, keys, values = _flatten((query, key, value))
  mixed, gradients = _flatten((mixed, gradient))
  dtype, wide = query.dtype, logs.dtype
  shares = (mixed.astype(wide) * gradients.astype(wide)).sum(-1, keepdims=True)

  def run_block(number, state):
    own, own_tokens = queries[number], _pick(tokens, number)
    upper = gradients[number]

    def visit(turn, state):
      of_query, of_keys, of_values = state
      other = order[number, turn]
      bias = _make_bias(own_tokens, _pick(tokens, other), rule)
      weights = jnp.exp(_score(own, keys[other], bias) - logs[number])
      of_value = _multiply(weights.astype(dtype), upper, (1, 1), wide)
      of_weights = _multiply(upper, values[other], (2, 2), wide)
      of_scores = (weights * (of_weights - shares[number])).astype(dtype)
      of_query = of_query + _multiply(of_scores, keys[other], (2, 1), wide)
      of_key = _multiply(of_scores, own, (1, 1), wide)
      return (
        of_query,
        of_keys.at[other].add(of_key),
        of_values.at[other].add(of_value),
      )

    of_queries, of_keys, of_values = state
    state = jnp.zeros(own.shape, wide), of_keys, of_values
    state = jax.lax.fori_loop(0, counts[number], visit, state)
    of_query, of_keys, of_values = state
    return of_queries.at[number].set(of_query.astype(dtype)), of_keys, of_values

  state = (
    jnp.zeros(queries.shape, dtype),
    jnp.zeros(keys.shape, wide),
    jnp.zeros(values.shape, wide),
  )
  state = jax.lax.fori_loop(0, len(queries), run_block, state)
  arrays = zip(state, (query, key, value), strict=True)
  return None, *(x.astype(like.dtype).reshape(like.shape) for x, like in arrays)


_mix.defvjp(_remember, _run_backward)
