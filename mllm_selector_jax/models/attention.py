"""Attention: which token sees which, and the kernels that take the weighted sum.

A `Layout` says who sees whom. It is turned once a forward pass into an `Attend`,
a function of query, key and value that every layer calls. `KERNELS` holds the
ways of doing that; "xla" is what the others are checked against
(models/attention_check.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import block_attention, splash
from mllm_selector_jax.models.block_attention import UNSEEN, Rule, Tokens

# Patches of a row at most for which cuDNN is given a mask of all pairs, which takes 3
# bytes a pair: 0.8 GB. More patches are visited in blocks, slowly but in any memory.
MASKED = 16384
BLOCK = 128  # queries whose scores are held at once, where all keys are visited
DENSE = 256  # tokens of a row at most, for which that is as fast on CPUs

# (query [B L H d], key and value [B T Hkv d]) -> [B L H d]
Attend = Callable[[Array, Array, Array], jax.Array]


class Layout(NamedTuple):
  """Who sees whom in packed rows.

  A query sees the keys at and before its place that are of its own segment, or
  of its trunk: the earlier segment that several branches continue. If the rows are
  not causal, it sees later keys of these segments too; with `images`, those of its own
  image. Padding sees itself alone.

  Attributes:
    segments: a number a segment, 0 for padding; tokens of one lie together.
    positions: the position in the sample; a branch goes on where its trunk ends.
    prefixes: the trunk's segment; below 1 for none. None: no row has one.
    window: positions that a query sees, its own included; None is all, which rows
      that are not causal must have.
    causal: whether a query sees no later key.
    longest: tokens that no segment has more of, known while tracing; None: unknown.
      Only rows that are not causal, and have no prefixes, have it.
    images: a number an image, different for all images of a row, 0 for text. Tokens of
      one image lie together in a segment. None: no query sees a later key. Only causal
      rows have them. A window counts positions, so that it hides no later key.
    image_length: tokens that no image has more of, known while tracing; None: unknown.
  """

  segments: Int[Array, "B L"]
  positions: Int[Array, "B L"]
  prefixes: Int[Array, "B L"] | None = None
  window: int | None = None
  causal: bool = True
  longest: int | None = None
  images: Int[Array, "B L"] | None = None
  image_length: int | None = None


def split_layout(layout: Layout) -> tuple[Tokens, Rule]:
  """The layout's tokens, and its rule."""
  segments, positions, prefixes, window, causal, longest, images, _ = layout
  assert causal or window is None, "a window is of causal rows"
  assert causal or images is None, "without an order, all tokens see later ones"
  assert longest is None or not (causal or prefixes is not None)
  places = jnp.broadcast_to(jnp.arange(segments.shape[1]), segments.shape)
  counted = None if window is None else positions
  return Tokens(segments, prefixes, counted, places, images), Rule(causal, window)


def find_seen(layout: Layout) -> Bool[jax.Array, "B L L"]:
  """Whether a query (row) sees a key (column)."""
  tokens, rule = split_layout(layout)
  return block_attention.find_pairs(tokens, tokens, rule)


def make_bias(layout: Layout) -> Float[Array, "B 1 1 L L"]:
  """0 where a query sees a key, `UNSEEN` elsewhere."""
  bias = jnp.where(find_seen(layout), 0.0, UNSEEN).astype(jnp.float32)
  return bias[:, None, None]


def attend_biased(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B T Hkv d"],
  value: Float[Array, "B T Hkv d"],
  bias: Float[Array, "B 1 1 L T"] | None,
) -> Float[jax.Array, "B L H d"]:
  """Attention; query heads share key-value heads evenly.

  The softmax is in float32 or better. Written out, head by head and divided last,
  since on CPUs that takes .4 to .8 of the time of jax.nn.dot_product_attention.
  """
  batch, length, heads, width = query.shape
  shared = key.shape[2]
  wide = jnp.promote_types(query.dtype, jnp.float32)
  # Of each key-value head all queries, so that both products are plain matmuls.
  query = (query * width**-0.5).transpose(0, 2, 1, 3).reshape(batch, shared, -1, width)
  scores = jax.lax.dot_general(
    query,
    key.transpose(0, 2, 1, 3),
    (((3,), (3,)), ((0, 1), (0, 1))),
    preferred_element_type=wide,
  )
  scores = scores.reshape(batch, shared, heads // shared, length, -1)
  if bias is not None:
    scores = scores + bias
  highest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
  weights = jnp.exp(scores - highest)
  total = weights.sum(-1, keepdims=True)
  weights = weights.astype(value.dtype).reshape(*query.shape[:3], -1)
  mixed = jnp.matmul(weights, value.transpose(0, 2, 1, 3), preferred_element_type=wide)
  mixed = mixed.reshape(*total.shape[:-1], width) / total
  mixed = mixed.astype(value.dtype).reshape(batch, heads, length, width)
  return mixed.transpose(0, 2, 1, 3)


def cut_blocks(length: int) -> list[tuple[int, int]]:
  """Queries in blocks (first, last) of `BLOCK`, or of an eighth of a longer row.

  A block's keys end where it does, or where an image may that it begins, which leaves
  out nearly half of all pairs, and keeps the scores of one block at a time: on CPUs 1.2
  to 3.6 times as fast.
  """
  size = max(BLOCK, -(-length // 8))
  return [(first, min(first + size, length)) for first in range(0, length, size)]


def attend_causal(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  bias: Float[Array, "B 1 1 L L"],
  ahead: int = 0,
) -> Float[jax.Array, "B L H d"]:
  """`attend_biased` where no query sees more than `ahead` later keys."""
  blocks = [
    attend_biased(
      query[:, first:last],
      key[:, : last + ahead],
      value[:, : last + ahead],
      bias[..., first:last, : last + ahead],
    )
    for first, last in cut_blocks(query.shape[1])
  ]
  return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def _attend_near(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  segments: Int[Array, "B L"],
  longest: int,
) -> Float[jax.Array, "B L H d"]:
  """Attention in segments of at most `longest` tokens, not causal.

  A segment lies in a block of so many tokens and the one before or after it, so that
  each block of queries sees three blocks of keys. All blocks are computed at once.
  """
  rows, length = segments.shape
  blocks = -(-length // longest)

  def cut(x, sides=0):
    """The row's blocks, filled up with 0; with so many of 0 at both ends."""
    filled = (sides * longest, sides * longest + -length % longest)
    filled = jnp.pad(x, ((0, 0), filled, *((0, 0),) * (x.ndim - 2)))
    return filled.reshape(rows, blocks + 2 * sides, longest, *x.shape[2:])

  def widen(x):
    """Of each block the one before it, itself and the one after it, in one."""
    x = cut(x, sides=1)
    wide = [x[:, :-2], x[:, 1:-1], x[:, 2:]]
    return jnp.concatenate(wide, axis=2).reshape(rows * blocks, -1, *x.shape[3:])

  places = jnp.broadcast_to(jnp.arange(1, length + 1), segments.shape)
  numbers = cut(segments), cut(places)
  own, place = (x.reshape(rows * blocks, longest) for x in numbers)
  seen = block_attention.find_pairs(
    Tokens(own, None, None, place),
    Tokens(widen(segments), None, None, widen(places)),
    Rule(False, None),
  )
  bias = jnp.where(seen, 0.0, UNSEEN).astype(jnp.float32)[:, None, None]
  query = cut(query).reshape(rows * blocks, longest, *query.shape[2:])
  mixed = attend_biased(query, widen(key), widen(value), bias)
  return mixed.reshape(rows, blocks * longest, *mixed.shape[2:])[:, :length]


def _make_near(layout: Layout) -> Attend:
  """Attention of short segments, in plain XLA.

  All kernels take it on accelerators, where the loop of `block_attention` is slow and
  fast kernels compute all pairs of a row: of windows of 64 patches, 256 times as many
  as are seen in 16,384. On CPUs the loop takes .2 to .7 of its time.
  """
  assert layout.longest is not None
  # The backward pass computes the weights again, and keeps none.
  attend = jax.checkpoint(_attend_near, static_argnums=4)
  return lambda query, key, value: attend(
    query, key, value, layout.segments, layout.longest
  )


def make_biased(bias: Float[Array, "B 1 1 L T"] | None) -> Attend:
  """Attention with that bias, in plain XLA."""
  return lambda query, key, value: attend_biased(query, key, value, bias)


def _make_xla(layout: Layout | None) -> Attend:
  if layout is None:
    return make_biased(None)
  if layout.longest is not None and sharding.platform() != "cpu":
    return _make_near(layout)
  if visits_blocks(layout):
    tokens, rule = split_layout(layout)
    blocks = block_attention.cut_rows(tokens, rule)
    return lambda query, key, value: block_attention.attend(
      query, key, value, blocks, rule
    )
  bias = make_bias(layout)
  if not layout.causal:
    return make_biased(bias)
  ahead = 0
  if layout.images is not None:
    ahead = (layout.image_length or layout.images.shape[1]) - 1
  return lambda query, key, value: attend_causal(query, key, value, bias, ahead)


def visits_blocks(layout: Layout) -> bool:
  """Whether plain XLA leaves out blocks of keys that no query of a block sees.

  On CPUs it does so in long rows. On accelerators a loop over small blocks would be
  slow, so causal rows, which have fast kernels there, are attended to whole; other
  rows may be of very many patches, whose pairs no memory would hold.
  """
  length = layout.segments.shape[1]
  return length > DENSE and (not layout.causal or sharding.platform() == "cpu")


def _make_cudnn(layout: Layout | None) -> Attend:
  # The mask is explicit. It becomes a bias, which cuDNN cannot take as a hint:
  # segment ids were once dropped silently on the way to it (MaxText #4476).
  # `is_causal` says nothing new, but lets it skip half of the blocks.
  mask = None
  if layout is not None and layout.longest is not None:
    return _make_near(layout)
  if layout is not None and not layout.causal and layout.segments.shape[1] > MASKED:
    return _make_xla(layout)
  ordered = False
  if layout is not None:
    ordered = layout.causal and layout.images is None
    mask = sharding.constrain(
      find_seen(layout)[:, None], ("batch", None, "length", None)
    )

  def attend(query, key, value):
    return jax.nn.dot_product_attention(
      query,
      key,
      value,
      mask=mask,
      is_causal=ordered,
      implementation="cudnn",
    )

  return attend


def _make_splash(layout: Layout | None) -> Attend:
  if layout is None:
    return _make_xla(layout)
  if layout.longest is not None:
    return _make_near(layout)
  # Splash's own masks hold for all rows. They know no images, and measure a window in
  # places, between which other branches may lie.
  branched = layout.window is not None and layout.prefixes is not None
  if layout.images is not None or branched:
    seen = find_seen(layout)
    return lambda query, key, value: splash.attend_masked(query, key, value, seen)
  return lambda query, key, value: splash.attend(
    query, key, value, layout.segments, layout.prefixes, layout.window, layout.causal
  )


# What turns a layout (None: everything sees everything) into an `Attend`.
KERNELS: dict[str, Callable[[Layout | None], Attend]] = {
  "xla": _make_xla,
  "cudnn": _make_cudnn,
  "splash": _make_splash,
}


def make_attend(kernel: str, layout: Layout | None) -> Attend:
  """The attention of all layers of a forward pass.

  Args:
    kernel: one of `KERNELS`; "auto" is "xla", until the first batch has been
      checked (`attention_check.choose_kernel`).
    layout: who sees whom; None: everything sees everything.
  """
  return KERNELS["xla" if kernel == "auto" else kernel](layout)


def find_fast_kernel(dtype: str) -> str:
  """What "auto" tries first on this platform, for that compute type."""
  platform = jax.default_backend()
  if platform == "gpu" and dtype == "bfloat16":
    return "cudnn"
  return "splash" if platform == "tpu" else "xla"
