"""What earlier tokens leave, kept so that a new token is read alone.

Of layers of attention these are keys and values; of linear attention, a state.

A prompt's are written once and only read after that; what is generated goes to places
of its own, the same for all rows. So a step writes little, and copies nothing large.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.attention import UNSEEN

AXES = ("batch", "kv_heads", None, None)


class Cache(NamedTuple):
  """One layer's rotated keys, and values, of T places."""

  keys: Float[Array, "B Hkv T d"]
  values: Float[Array, "B Hkv T d"]


class State(NamedTuple):
  """What a layer of linear attention goes on from.

  Attributes:
    tail: the last tokens before the next one, as they enter the convolution.
    state: of the delta rule.
  """

  tail: Float[Array, "B before c"]
  state: Float[Array, "B Hv d v"]


# Of all layers: a list of each one's, or one with the layer axis first, and of several
# kinds of layers one each, as `stack.run_keeping` has it.
Kept = Cache | State
Layers = list[Kept] | Kept | dict[str, Kept]


class Past(NamedTuple):
  """What a new token may see of a layer, besides itself.

  Attributes:
    prompt: places of the prompts, padded on the right.
    answer: places of what was generated; a step writes its own.
  """

  prompt: Cache
  answer: Cache


def lay_out(
  key: Float[jax.Array, "B T Hkv d"], value: Float[jax.Array, "B T Hkv d"]
) -> Cache:
  """One layer's keys and values as they are kept."""
  return Cache(
    *(sharding.constrain(x.transpose(0, 2, 1, 3), AXES) for x in (key, value))
  )


def make_answer(prompt: Layers, places: int) -> Layers:
  """Empty places for what is generated, in the form of the prompts' cache.

  A state is what the answer goes on from, and then its own.
  """

  def empty(x):
    x = jnp.zeros((*x.shape[:-2], places, x.shape[-1]), x.dtype)
    return sharding.constrain(x, ("layers", *AXES)[-x.ndim :])

  def begin(kept):
    return kept if isinstance(kept, State) else jax.tree.map(empty, kept)

  return jax.tree.map(begin, prompt, is_leaf=_is_kept)


def _is_kept(tree: Any) -> bool:
  return isinstance(tree, Cache | State)


def places(past: Any) -> tuple[int, int]:
  """How many places prompts and answers have, of what `pair` gave."""
  kept = jax.tree.leaves(past, is_leaf=lambda tree: isinstance(tree, Past))
  found = next(one for one in kept if isinstance(one, Past))
  return found.prompt.keys.shape[-2], found.answer.keys.shape[-2]


def pair(prompt: Layers, answer: Layers) -> Any:
  """Both in the form of a state of `stack.run_keeping`; of states the answer's."""

  def join(prompt, answer):
    return answer if isinstance(answer, State) else Past(prompt, answer)

  return jax.tree.map(join, prompt, answer, is_leaf=_is_kept)


def make_bias(
  lengths: Int[Array, " B"],
  step: Int[Array, ""],
  prompt: int,
  answer: int,
  window: int | None = None,
) -> Float[Array, "B {prompt}+{answer}"]:
  """0 where the token generated at a step sees a place, `UNSEEN` elsewhere.

  Args:
    lengths: tokens of each prompt.
    step: tokens that were generated before this one; its own place is seen.
    prompt: places of the prompts, T.
    answer: places of what is generated, n.
    window: places that a token sees, its own included; None is all.
  """
  place, number = jnp.arange(prompt)[None], jnp.arange(answer)[None]
  before, after = place < lengths[:, None], number <= step
  if window is not None:
    before &= lengths[:, None] + step - place < window
    after &= step - number < window
  seen = jnp.concatenate(
    [before, jnp.broadcast_to(after, (len(lengths), answer))], axis=1
  )
  return jnp.where(seen, 0.0, UNSEEN).astype(jnp.float32)


def write(
  layer: Cache,
  key: Float[jax.Array, "B 1 Hkv d"],
  value: Float[jax.Array, "B 1 Hkv d"],
  step: Int[Array, ""],
) -> Cache:
  """One layer's answers with the new token's key and value at its place."""
  own = lay_out(key, value)
  return Cache(
    *(
      jax.lax.dynamic_update_slice_in_dim(old, new, step, axis=2)
      for old, new in zip(layer, own, strict=True)
    )
  )


def make_attend(past: Past, bias: Float[Array, "B seen"]) -> Callable[[Array], Array]:
  """Attention of one new token a row over a layer's places, both parts as one.

  The softmax is in float32 or better.
  """

  def attend(query):
    batch, _, heads, width = query.shape
    shared = past.prompt.keys.shape[1]
    wide = jnp.promote_types(query.dtype, jnp.float32)
    query = (query * width**-0.5).reshape(batch, shared, heads // shared, width)
    scores = jnp.concatenate(
      [
        jnp.einsum("bkgd,bktd->bkgt", query, part.keys, preferred_element_type=wide)
        for part in past
      ],
      axis=-1,
    )
    weights = jax.nn.softmax(scores + bias[:, None, None], axis=-1)
    weights = weights.astype(query.dtype)
    cut = past.prompt.keys.shape[2]
    mixed = sum(
      jnp.einsum("bkgt,bktd->bkgd", own, part.values, preferred_element_type=wide)
      for own, part in zip(jnp.split(weights, [cut], axis=-1), past, strict=True)
    )
    return mixed.astype(query.dtype).reshape(batch, 1, heads, width)

  return attend
