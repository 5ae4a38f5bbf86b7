"""The first batch decides whether a fast attention kernel may be used.

A kernel that is wrong does not crash: it ignores a mask, and every loss is a
little off. So it is held against plain XLA, on the machine and the rows at hand.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import (
  attention,
  image_numbers,
  layer_views,
  mllm,
  native_tower,
)
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder import link_images
from mllm_selector_jax.models.decoder_config import FULL, WINDOW
from mllm_selector_jax.types import Batch, Params

# How far vectors may be apart, relative to their length: of one attention, where
# rounding gives a twentieth to a quarter of that and a key too many about 1; and
# of the hidden states, where it grows with the layers (docs/results/parity.md).
TOLERANCES = {
  "float32": (1e-5, 1e-4),
  "bfloat16": (2e-2, 2e-1),
  "float64": (1e-5, 1e-4),  # splash accumulates in float32
}
STATES = "hidden states"  # the other things that are compared are attentions


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
    differences = {
      place: float(relative_distance(found[place], wanted[place])) for place in wanted
    }
  except Exception as error:  # kernels raise whatever they like
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    warn(f"attention {kernel!r} cannot be run here, using 'xla': {reason}")
    return plain
  of_attention, of_states = TOLERANCES[config.dtype]
  # Attention first, which says more of what is wrong.
  for place in sorted(differences, key=STATES.__eq__):
    difference = differences[place]
    most = of_states if place == STATES else of_attention
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
) -> dict[str, Float[Array, "..."]]:
  """`_sample`, compiled for this config."""
  # A jit of its own, since it runs once and holds two programs of the model.
  # The key is an argument: the compiler would fold what a constant one draws.
  key = jax.random.key(0)
  return jax.jit(functools.partial(_sample, config))(params, batch, key)


def _sample(
  config: MllmConfig, params: Params, batch: Batch, key: Array
) -> dict[str, Float[Array, "..."]]:
  """What is compared, by its name.

  Attention of drawn vectors, in the decoder's layout and in those of a tower of native
  resolution; and the model's hidden states that count, which any tower's features are
  part of. On few rows: XLA holds the scores of all pairs of tokens, which is why there
  are fast kernels. Of these rows' shards the tower reads all images.
  """
  batch = _pick_rows(batch)
  decoder, vision = config.decoder, config.vision
  images = image_numbers.number_images(config, batch.patches, batch.places)
  sample = {}
  for window in layer_views.list_windows(decoder):
    place = "one attention" + " in a window" * (window is not None)
    layout = attention.Layout(batch.segments, batch.positions, batch.prefixes, window)
    layout = link_images(config, layout, images)
    sizes = decoder.of_kind(WINDOW if window else FULL)
    heads = sizes.heads, sizes.kv_heads
    sample[place] = _attend_drawn(config, layout, heads, sizes.head_dim, key)
  if batch.places is not None and batch.places.shape[1]:
    heads = vision.heads, vision.heads
    for name, layout in zip(
      ("images", "windows"), _lay_out_tower(config, batch.places), strict=False
    ):
      mixed = _attend_drawn(config, layout, heads, vision.head_dim, key)
      sample[f"one attention in {name}"] = mixed
  states = mllm.hidden_states(config, params, batch, batch.predict)
  # What nobody is scored by may differ.
  sample[STATES] = jnp.where(batch.weights[..., None] > 0, states, 0)
  return sample


def _lay_out_tower(
  config: MllmConfig, places: Int[Array, "W M 5"]
) -> list[attention.Layout]:
  """Who sees whom in a tower of native resolution.

  A shard without images is full of segments, so that there is something to compare.
  """
  vision = config.vision
  where = native_tower.PatchPlaces(places, vision.grid, vision.window)

  def fill(layout):
    segments = layout.segments
    most = layout.longest or segments.shape[1]
    full = 1 + jnp.arange(segments.shape[1])[None] // most
    empty = (segments < 1).all(1, keepdims=True)
    return layout._replace(segments=jnp.where(empty, full, segments))

  return [fill(layout) for layout in native_tower.find_layouts(where, vision)]


def _attend_drawn(
  config: MllmConfig,
  layout: attention.Layout,
  heads: tuple[int, int],
  width: int,
  key: Array,
) -> Float[Array, "B L H d"]:
  """One attention of vectors drawn for queries, keys and values.

  Args:
    config: names the kernel.
    layout: who sees whom.
    heads: of queries, and of keys and values.
    width: of a head.
    key: what is drawn from.
  """
  # Drawn, so that every key weighs something: one too many shows.
  drawn = [
    jax.random.normal(key, (*layout.segments.shape, many, width), config.dtype)
    for key, many in zip(jax.random.split(key, 3), (*heads, heads[1]), strict=True)
  ]
  with mllm.precision(config):
    mixed = attention.make_attend(config.attention, layout)(*drawn)
  # What padding sees may differ.
  return jnp.where(layout.segments[..., None, None] > 0, mixed, 0)


def _pick_rows(batch: Batch) -> Batch:
  """The row of most segments of each row shard; without a mesh of the batch."""
  mesh = jax.sharding.get_abstract_mesh()
  ways = 1 if mesh.empty else sharding.row_ways(mesh)
  if len(batch.segments) % ways:
    ways = 1
  rows, length = len(batch.tokens) // ways, batch.tokens.shape[1]
  crowded = batch.segments.max(1).reshape(ways, -1).argmax(1)

  def pick(x):
    # Of rows, or of shards of rows.
    parts = x.reshape(ways, -1, *x.shape[1:])
    return parts[jnp.arange(ways), crowded * parts.shape[1] // rows]

  picked = jax.tree.map(pick, batch)
  # Positions are counted through all rows of a shard, of which one is left.
  first = crowded % (len(batch.tokens) // len(batch.predict)) * length
  predict = picked.predict - first[:, None]
  inside = (predict >= 0) & (predict < length)
  return picked._replace(
    predict=jnp.where(inside, predict, 0), weights=jnp.where(inside, picked.weights, 0)
  )


@jax.jit
def relative_distance(
  found: Float[Array, "... D"], wanted: Float[Array, "... D"]
) -> Float[Array, ""]:
  """The largest distance of a vector from the wanted one, relative to its length."""
  found, wanted = (x.astype(jnp.float32) for x in (found, wanted))
  length = jnp.linalg.norm(wanted, axis=-1)
  distance = jnp.linalg.norm(found - wanted, axis=-1)
  return (distance / jnp.maximum(length, 1e-30)).max()
