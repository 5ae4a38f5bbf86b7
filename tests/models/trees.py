"""Rows of trees, trunks with their branches, laid out for attention."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.attention import Layout
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import Params
from tests.models import packed

Tree = tuple[int, Sequence[int]]  # tokens of the trunk, and of each branch


def lay_out(rows: Sequence[Sequence[Tree]], length: int) -> Layout:
  """Trees one after the other, branches after their trunk, then padding."""
  segments, positions = np.zeros((2, len(rows), length), np.int32)
  prefixes = np.full((len(rows), length), -1, np.int32)
  for row, trees in enumerate(rows):
    start = number = 0
    for trunk, branches in trees:
      own = number + 1
      for part, tokens in enumerate([trunk, *branches]):
        number += 1
        here = slice(start, start + tokens)
        segments[row, here] = number
        positions[row, here] = np.arange(tokens) + (trunk if part else 0)
        if part:
          prefixes[row, here] = own
        start += tokens
    assert start <= length, (start, length)
  return Layout(segments, positions, prefixes)


@functools.partial(jax.jit, static_argnums=0)
def decode(
  config: MllmConfig, params: Params, embedded: mllm.Embedded, layout: Layout
) -> jax.Array:
  """Final hidden states of rows laid out so."""
  segments, positions, prefixes = layout[:3]
  return mllm.decode(config, params, embedded, positions, segments, prefixes)


def split_samples(layout: Layout, row: int) -> Iterator[np.ndarray]:
  """The places of each sample: of a trunk alone or of a trunk with a branch."""
  segments, prefixes = layout.segments[row], layout.prefixes[row]
  for number in range(1, segments.max() + 1):
    own = np.flatnonzero(segments == number)
    yield np.concatenate([np.flatnonzero(segments == prefixes[own[0]]), own])


def draw_embedded(config: MllmConfig, rows: int, length: int) -> mllm.Embedded:
  """Random numbers that enter the decoder."""
  decoder, rng = config.decoder, np.random.default_rng(1)
  x = rng.normal(size=(rows, length, decoder.width)).astype(np.float32)
  if (given := decoder.layer_inputs) is None:
    return mllm.Embedded(x)
  size = decoder.layers, rows, length, given.width
  return mllm.Embedded(x, inputs=rng.normal(size=size).astype(np.float32))


def assert_branches_are_samples(
  config: MllmConfig, params: Params, rows: Sequence[Sequence[Tree]], length: int
) -> None:
  """Checks the states of branches against those of each sample in a row of its own."""
  layout = lay_out(rows, length)._replace(causal=None, longest=None)
  embedded = draw_embedded(config, len(rows), length)
  found = np.asarray(decode(config, params, embedded, layout))
  assert np.isfinite(found).all()
  for row in range(len(rows)):
    for places in split_samples(layout, row):
      count = len(places)

      def move(x, places=places, row=row):
        alone = np.zeros((*x.shape[:-3], 1, *x.shape[-2:]), np.float32)
        alone[..., 0, : len(places), :] = x[..., row, places, :]
        return alone

      one = lay_out([[(count, [])]], length)
      one = one._replace(prefixes=None, causal=None, longest=None)
      alone = jax.tree.map(move, embedded)
      wanted = np.asarray(decode(config, params, alone, one))[0, :count]
      scale = np.abs(wanted).max()
      np.testing.assert_allclose(found[row, places], wanted, atol=1e-5 * scale)


def assert_a_mesh_changes_nothing(config: MllmConfig) -> None:
  """Checks states and gradients on eight devices against those on one."""
  params, embedded = packed.random_params(config), draw_embedded(config, 4, 80)
  layout = lay_out([[(40, []), (30, [])]] * 4, 80)

  @jax.jit
  def differentiate(params, embedded):
    def loss(params):
      where = layout.positions, layout.segments
      states = mllm.decode(config, params, embedded, *where)
      return (states * jnp.cos(states)).mean(), states

    (_, states), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return states, gradients["decoder"]["layers"]

  wanted = differentiate(params, embedded)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  with sharding.use(mesh):
    rules = sharding.Rules()
    shardings = jax.tree.map(
      lambda axes: jax.NamedSharding(mesh, rules.spec(axes)),
      logical_axes(params),
      is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    found = differentiate(jax.device_put(params, shardings), embedded)
  leaves = jax.tree_util.tree_leaves_with_path(wanted)
  for one, (path, other) in zip(jax.tree.leaves(found), leaves, strict=True):
    assert other.any() or path[-1].key == "layer_scale"  # which is a constant
    distance = np.linalg.norm(one - np.asarray(other))
    assert distance <= 1e-4 * np.linalg.norm(other)
