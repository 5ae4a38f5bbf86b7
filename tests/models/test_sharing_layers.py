"""Layers that read keys and values of earlier ones, and inputs of single layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.models import cache, mllm, stack
from mllm_selector_jax.models.decoder_config import FULL, SHARING, WINDOW
from mllm_selector_jax.training import train_step, work
from mllm_selector_jax.types import InputError
from tests.models import native_inputs, packed, trees

CONFIG, DECODER = packed.SHARING, packed.SHARING.decoder
# Few enough to be compiled one by one.
FEW = dataclasses.replace(
  CONFIG,
  decoder=dataclasses.replace(DECODER, layers=4, full_layers=(1, 2), sharing=2),
)
BOTH = pytest.mark.parametrize("config", [CONFIG, FEW], ids=["loops", "one by one"])
LENGTH = 60
ROWS = [[(9, [3, 7]), (1, [2, 9, 1])], [(20, [4]), (5, [])]]


def test_each_reads_the_last_earlier_layer_of_its_kind():
  own = (WINDOW, FULL, WINDOW, FULL, WINDOW)
  sharing = (WINDOW, FULL, WINDOW, FULL)
  assert DECODER.order == (*own, *(SHARING[kind] for kind in sharing))
  assert DECODER.sources == {SHARING[WINDOW]: 4, SHARING[FULL]: 3}
  assert FEW.decoder.sources == {SHARING[FULL]: 1, SHARING[WINDOW]: 0}
  sizes = DECODER.of_kind(SHARING[FULL])
  assert (sizes.kv_heads, sizes.head_dim, sizes.mlp) == (2, 8, 48)
  assert DECODER.of_kind(SHARING[WINDOW]).head_dim == DECODER.head_dim


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"sharing": 9}, "the last 9 of 9 layers read keys and values of earlier ones"),
    ({"sharing": 8}, r"no earlier one is of their kind \(full\)"),
    ({"full": None}, "must have heads of two widths"),
    (
      {"layer_inputs": dataclasses.replace(DECODER.layer_inputs, vocab=39)},
      "embeddings by layer of 39 tokens .* as many tokens as the vocabulary has, 40",
    ),
    (
      {"layer_inputs": dataclasses.replace(DECODER.layer_inputs, padding=40)},
      "of which token 40 stands for images",
    ),
    (
      {"layer_inputs": dataclasses.replace(DECODER.layer_inputs, width=-1)},
      "embeddings by layer of 40 tokens and -1 channels",
    ),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  with pytest.raises(InputError, match=message):
    dataclasses.replace(DECODER, **changes)


@BOTH
def test_branches_of_a_trunk_are_samples_of_their_own(config):
  params = packed.random_params(config)
  trees.assert_branches_are_samples(config, params, ROWS, LENGTH)


def test_a_mesh_changes_neither_states_nor_gradients():
  trees.assert_a_mesh_changes_nothing(CONFIG)


def test_loops_give_what_layers_one_by_one_give(monkeypatch):
  params, layout = packed.random_params(CONFIG), trees.lay_out(ROWS, LENGTH)
  layout = layout._replace(causal=None, longest=None)
  embedded = trees.draw_embedded(CONFIG, 2, LENGTH)
  found = trees.decode(CONFIG, params, embedded, layout)
  monkeypatch.setattr(stack, "UNROLLED", 99)
  trees.decode.clear_cache()
  wanted = trees.decode(CONFIG, params, embedded, layout)
  trees.decode.clear_cache()
  np.testing.assert_allclose(found, wanted, atol=1e-5)


@BOTH
def test_reading_and_extending_give_what_reading_the_whole_gives(config):
  # In float64, where rounding hides nothing.
  config = dataclasses.replace(config, dtype="float64")
  lengths, rows, new = np.array([11, 4, 1]), np.arange(3), 4
  layout = trees.lay_out([[(int(n) + new, [])] for n in lengths], 11 + new)
  layout = layout._replace(prefixes=None, causal=None, longest=None)
  with jax.enable_x64(True):
    whole, params = jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float64),
      (trees.draw_embedded(config, 3, 11 + new), packed.random_params(config)),
    )
    wanted = np.asarray(trees.decode(config, params, whole, layout))
    prompts = jax.tree.map(lambda x: x[..., :11, :], whole)
    found, prompt = mllm.read(config, params, prompts, lengths)
    answer = cache.make_answer(prompt, new)
    for step in range(new):
      at = lengths + step
      np.testing.assert_allclose(found, wanted[rows, at - 1], atol=1e-10)
      one = mllm.Embedded(
        whole.x[rows, at][:, None], inputs=whole.inputs[:, rows, at][:, :, None]
      )
      found, answer = mllm.extend(
        config, params, one, lengths, jnp.int32(step), prompt, answer
      )
    np.testing.assert_allclose(found, wanted[rows, at], atol=1e-10)


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  rows = [[native_inputs.draw_sample(CONFIG, rng, [3, (2, 3), 4])]]
  return native_inputs.pack_rows(CONFIG, rows, 32)


@BOTH
def test_all_but_constants_has_a_gradient(config, batch):
  params = packed.random_params(config)
  grads = jax.jit(jax.grad(lambda params: train_step.batch_loss(config, params, batch)))
  found = grads(params)
  still = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    if not leaf.any()
  ]
  assert all(name.endswith("/layer_scale") or "_bounds/" in name for name in still)
  assert len(still) == len(set(config.decoder.order)) + 4 * 7
  table = found["decoder"]["layer_inputs"]["table"]
  seen = np.unique(batch.tokens[(batch.segments > 0) & (batch.patches < 0)])
  assert not table[DECODER.layer_inputs.padding].any()
  # The last token's row is read by nothing that counts.
  assert set(np.flatnonzero(np.asarray(table).any(1))) <= set(seen)
  assert np.asarray(table).any(1).sum() >= len(seen) - 1


def test_features_have_the_row_of_padding(batch):
  params = packed.random_params(CONFIG)
  images = batch.images, None, None, batch.places

  def give(tokens):
    return mllm.embed(CONFIG, params, tokens, batch.patches, *images).inputs

  other = np.where(batch.patches >= 0, 7, batch.tokens)
  np.testing.assert_array_equal(give(batch.tokens), give(other))


@BOTH
def test_recomputed_blocks_give_the_same_gradient(config, batch):
  params = packed.random_params(config)

  def differentiate(**changes):
    changed = dataclasses.replace(config, **changes)
    loss = jax.grad(lambda params: train_step.batch_loss(changed, params, batch))
    return jax.jit(loss)(params)["decoder"]

  wanted, found = differentiate(), differentiate(remat="full")
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_cost_of_what_layers_have_is_counted_by_kind():
  shapes = mllm.abstract(CONFIG)
  rates = work.make_rates(CONFIG, shapes, None)
  near, far = 5 * 4 * 4, 4 * 4 * 8  # channels of all heads, in all layers of a kind
  assert rates.key == 4 * (near + far)
  kernels = [
    leaf.size
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["decoder"])
    if path[-1].key == "kernel"
  ]
  assert rates.token == 2 * sum(kernels)
