"""Greedy answers: batches of prompts, and the jitted loop that continues them."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mllm_selector_jax import losses, sharding, types
from mllm_selector_jax.data.packing.image_places import place_features, place_tiles
from mllm_selector_jax.data.packing.rotary_axes import lay_axes
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.cache import make_answer
from mllm_selector_jax.models.config import MllmConfig


class Prompts(NamedTuple):
  """A batch of prompts, padded on the right.

  Attributes:
    tokens: token ids, 0 beyond a row's length.
    patches: index into the row's table of features, see `types.Batch`; -1 where there
      is text.
    lengths: tokens of each prompt; 0 for a row that only fills the batch.
    images: tiles of each row's images; M is 0 if no row has one.
    taps, tap_weights: of each row's interpolated features; K is 0 if no row has one.
    places: of each row's tiles, see `types.Batch`; None where tiles are images.
    axes: positions in time, row and column; None where a token's place is its position.
    following: the position by which the first token of the answer turns; None: the
      prompt's length.
  """

  tokens: Int[np.ndarray, "B L"]
  patches: Int[np.ndarray, "B L"]
  lengths: Int[np.ndarray, " B"]
  images: UInt8[np.ndarray, "B M S S 3"]
  taps: Int[np.ndarray, "B K 4"]
  tap_weights: Float[np.ndarray, "B K 4"]
  places: Int[np.ndarray, "B M 5"] | None = None
  axes: Int[np.ndarray, "B L 3"] | None = None
  following: Int[np.ndarray, " B"] | None = None


class PromptsSize(NamedTuple):
  """What the prompts of a batch need at most, rounded up so that few are compiled.

  Attributes:
    length: tokens.
    tiles, taps: of a row's images.
  """

  length: int
  tiles: int
  taps: int


def measure_prompts(prompts: Sequence[types.Sample]) -> PromptsSize:
  """The sizes of a batch of these prompts."""
  return PromptsSize(
    bucket_length(max(len(prompt.tokens) for prompt in prompts)),
    max(bucket_tiles(count_tiles(prompt)) for prompt in prompts),
    max(_bucket_taps(prompt) for prompt in prompts),
  )


def count_tiles(prompt: types.Sample) -> int:
  """Tiles of a prompt's images."""
  return sum(image.layout.tiles for image in prompt.images)


def bucket_tiles(tiles: int) -> int:
  """The padded number of tiles: the next power of two, or 0."""
  return 1 << (tiles - 1).bit_length() if tiles else 0


def _bucket_taps(prompt: types.Sample) -> int:
  return -(-sum(len(image.layout.taps) for image in prompt.images) // 512) * 512


def bucket_length(length: int) -> int:
  """The padded length of a prompt: the next multiple of 16, coarser when long.

  Steps are at most an eighth of the length, so that few lengths are compiled and
  little is padded, whatever the lengths are.
  """
  length = max(length, 1)
  step = max(16, 2 ** (length.bit_length() - 1) // 8)
  return -(-length // step) * step


def make_prompts(
  prompts: Sequence[types.Sample],
  tiles: Sequence[tuple[UInt8[np.ndarray, "_ S S 3"], ...]],
  config: MllmConfig,
  rows: int,
  size: PromptsSize | None = None,
) -> Prompts:
  """Pads prompts and their images to a batch of `rows` rows.

  Args:
    prompts: the tokens of each.
    tiles: of each one's images; none where they could not be read.
    config: of the model.
    rows: at least as many as prompts.
    size: of the batch, where these prompts are a share of it.
  """
  size = size or measure_prompts(prompts)
  tiling, side = config.tiling, config.tiling.side
  batch = Prompts(
    tokens=np.zeros((rows, size.length), np.int32),
    patches=np.full((rows, size.length), -1, np.int32),
    lengths=np.zeros(rows, np.int32),
    images=np.zeros((rows, size.tiles, side, side, 3), np.uint8),
    taps=np.zeros((rows, size.taps, 4), np.int32),
    tap_weights=np.zeros((rows, size.taps, 4), np.float32),
    places=np.zeros((rows, size.tiles, 5), np.int32) if tiling.native else None,
    axes=np.zeros((rows, size.length, 3), np.int32) if tiling.axes else None,
    following=np.zeros(rows, np.int32) if tiling.axes else None,
  )
  for row, (prompt, cuts) in enumerate(zip(prompts, tiles, strict=True)):
    batch.tokens[row, : len(prompt.tokens)] = prompt.tokens
    batch.lengths[row] = len(prompt.tokens)
    if batch.axes is not None and batch.following is not None:
      axes = lay_axes(prompt, config.image_token)
      batch.axes[row, : len(axes)] = axes
      batch.following[row] = axes.max(initial=-1) + 1
    tile = tap = 0
    pairs = enumerate(zip(prompt.images, cuts, strict=False), 1)
    for number, ((start, layout), cut) in pairs:
      (at,) = np.nonzero(layout.tokens == config.image_token)
      batch.patches[row, start + at] = place_features(
        layout, tile, tap, size.tiles, config.patches
      )
      batch.images[row, tile : tile + layout.tiles] = cut
      if batch.places is not None:
        placed = place_tiles(layout, number)
        batch.places[row, tile : tile + layout.tiles] = placed
      span = slice(tap, tap + len(layout.taps))
      batch.taps[row, span] = layout.taps + tile * config.patches
      batch.tap_weights[row, span] = layout.weights
      tile, tap = tile + layout.tiles, span.stop
  return batch


@functools.partial(jax.jit, static_argnames=("config", "max_new_tokens"))
def _generate(
  config: MllmConfig,
  max_new_tokens: int,
  stops: Int[Array, " ends"],
  vocabulary: Int[Array, ""],
  params: types.Params,
  tokens: Int[Array, "B L"],
  patches: Int[Array, "B L"],
  lengths: Int[Array, " B"],
  images: UInt8[Array, "B M S S 3"],
  taps: Int[Array, "B K 4"],
  tap_weights: Float[Array, "B K 4"],
  places: Int[Array, "B M 5"] | None = None,
  axes: Int[Array, "B L 3"] | None = None,
  following: Int[Array, " B"] | None = None,
) -> Int[Array, "B new"]:
  rows = len(tokens)
  tapped = (taps, tap_weights) if taps.shape[1] else (None, None)
  embeddings = mllm.embed(config, params, tokens, patches, images, *tapped, places)
  states, prompt = mllm.read(config, params, embeddings, lengths, axes)
  # The last new token is never read, so it needs no place; no cache is empty.
  answer = make_answer(prompt, max(max_new_tokens - 1, 1))
  text = jnp.full((rows, 1), -1, jnp.int32)
  head = mllm.head(config, params)

  def choose(states: Float[Array, "B D"]) -> Int[Array, " B"]:
    # Rounded products would decide near-ties; argmax gives the lowest id of ties.
    logits = jnp.dot(
      states,
      head.astype(states.dtype),
      precision="highest" if config.dtype == "float32" else None,
      preferred_element_type=jnp.float32,
    )
    # Large ones become equal.
    logits = losses.cap_logits(logits, config.decoder.logit_cap)
    known = jnp.arange(logits.shape[1]) < vocabulary
    return jnp.argmax(jnp.where(known[None], logits, -jnp.inf), axis=-1)

  def record(step, done, ids, states):
    chosen = jnp.where(done, stops[0], choose(states).astype(jnp.int32))
    ids = jax.lax.dynamic_update_slice(ids, chosen[:, None], (0, step))
    return step + 1, done | jnp.isin(chosen, stops), ids

  def unfinished(state):
    step, done, _, _ = state
    return (step < max_new_tokens) & ~jnp.all(done)

  def advance(state):
    step, done, ids, answer = state
    newest = jax.lax.dynamic_slice(ids, (0, step - 1), (rows, 1))
    embedded = mllm.embed(config, params, newest, text, images[:, :0])
    states, answer = mllm.extend(
      config, params, embedded, lengths, step - 1, prompt, answer, following
    )
    return *record(step, done, ids, states), answer

  ids = jnp.full((rows, max_new_tokens), stops[0], jnp.int32)
  state = (*record(jnp.int32(0), lengths == 0, ids, states), answer)
  ids = jax.lax.while_loop(unfinished, advance, state)[2]
  # Whole on every device, so that every process can read all rows.
  return sharding.constrain(ids, (None, None))


def make_generate(
  config: MllmConfig,
  max_new_tokens: int,
  eos: int | Sequence[int],
  vocabulary: int | None = None,
) -> Callable[..., Int[Array, "B new"]]:
  """A jitted greedy `generate(params, *prompts)`.

  The arguments after `params` are those of `Prompts`. Images and prompts are
  read once, and their keys and values kept; each step reads the new tokens alone.
  The loop ends when every row has ended.

  Args:
    config: the model.
    max_new_tokens: longest answer, its end included.
    eos: the token that ends an answer, or several that do.
    vocabulary: only ids below it are chosen; None allows all.

  Returns:
    The function. It gives each row's new tokens, its end among them, and the first
    of `eos` after that.
  """
  limit = config.decoder.vocab if vocabulary is None else vocabulary
  stops = np.atleast_1d(np.asarray(eos, np.int32))
  return functools.partial(_generate, config, max_new_tokens, stops, np.int32(limit))
