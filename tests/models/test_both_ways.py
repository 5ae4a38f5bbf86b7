"""Attention in which tokens of one image see one another in both directions."""

import dataclasses

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import (
  attention,
  attention_check,
  axes,
  block_attention,
  image_numbers,
  mllm,
)
from mllm_selector_jax.training import work
from tests.models import packed
from tests.models.test_attention import plain_attention, random_case

TOKENS = 70  # of an image
# Of each segment, its trunk's number and its spans of text and images: a trunk that
# ends with an image, two branches, one of them with an image, and two samples, in one
# of which an image adjoins another. Blocks of 64 and of 128 tokens cut the images.
ROW = (
  (0, ("text", 40), ("image", TOKENS), ("text", 3), ("image", TOKENS)),
  (1, ("text", 25)),
  (1, ("text", 12), ("image", TOKENS), ("text", 9)),
  (0, ("image", 55), ("image", TOKENS), ("text", 5)),
  (0, ("text", 30)),
)
LENGTH = 480


def lay_out(window=None, row=ROW, length=LENGTH):
  segments, positions, prefixes, images = np.zeros((4, 1, length), np.int32)
  ends, start, image = [0], 0, 0
  for number, (trunk, *spans) in enumerate(row, 1):
    total = sum(count for _, count in spans)
    segments[0, start : start + total] = number
    prefixes[0, start : start + total] = trunk
    positions[0, start : start + total] = ends[trunk] + np.arange(total)
    ends.append(total)
    for kind, count in spans:
      if kind == "image":
        image += 1
        images[0, start : start + count] = image
      start += count
  assert start < length
  return attention.Layout(
    segments, positions, prefixes, window, images=images, image_length=TOKENS
  )


def run(arrays, layout, kernel="xla"):
  attend = attention.make_attend(kernel, layout)
  return np.asarray(jax.jit(lambda arrays: attend(*arrays))(arrays))


@pytest.mark.parametrize("window", [None, 20, 100])
@pytest.mark.parametrize("dense", [0, 4096], ids=["blocks", "all pairs"])
def test_agrees_with_plain_numpy(monkeypatch, window, dense):
  monkeypatch.setattr(attention, "DENSE", dense)
  layout = lay_out(window)
  arrays = random_case(np.random.default_rng(0), batch=1, length=LENGTH)
  wanted = plain_attention(*arrays, layout)
  np.testing.assert_allclose(run(arrays, layout), wanted, atol=1e-5)
  if window is None or window > 3:
    causal = run(arrays, layout._replace(images=None))
    apart = np.abs(causal - wanted).max((0, 2, 3)) > 1e-3
    pictured = layout.images[0] > 0
    last = pictured & (np.diff(layout.images[0], append=0) != 0)
    np.testing.assert_array_equal(apart, pictured & ~last)


def test_all_ways_have_the_same_gradient(monkeypatch):
  rng, layout = np.random.default_rng(1), lay_out(100)
  arrays = random_case(rng, batch=1, length=LENGTH)
  mix = rng.normal(size=arrays[0].shape)

  def differentiate(attend):
    return jax.jit(jax.grad(lambda arrays: (attend(*arrays) * mix).sum()))(arrays)

  wanted = differentiate(attention.make_biased(attention.make_bias(layout)))
  for dense in (0, 4096):
    monkeypatch.setattr(attention, "DENSE", dense)
    found = differentiate(attention.make_attend("xla", layout))
    for one, other in zip(found, wanted, strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5)


def test_blocks_of_an_image_are_visited_and_no_others():
  block = block_attention.BLOCK
  row = ((0, ("text", block), ("image", 2 * block), ("text", block)), (0, ("text", 9)))
  layout = lay_out(row=row, length=5 * block)
  tokens, rule = attention.split_layout(layout)
  blocks = block_attention.cut_rows(tokens, rule)
  found = [
    order[:count].tolist()
    for order, count in zip(blocks.order[0], blocks.counts[0, :, 0], strict=True)
  ]
  assert found == [[0], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3], [4]]


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("length", [LENGTH, 512, 700])
def test_splash_sees_later_tokens_of_an_image(window, length):
  rng, layout = np.random.default_rng(5), lay_out(window, length=length)
  arrays = random_case(rng, batch=1, length=length)
  wanted = plain_attention(*arrays, layout)
  np.testing.assert_allclose(run(arrays, layout, "splash"), wanted, atol=1e-5)


def test_splash_has_the_same_gradient_over_a_mesh():
  rng, layout = np.random.default_rng(6), lay_out(100)
  layout = layout._replace(
    segments=np.repeat(layout.segments, 2, 0),
    positions=np.repeat(layout.positions, 2, 0),
    prefixes=np.repeat(layout.prefixes, 2, 0),
    # The second row has other images.
    images=np.stack([layout.images[0], np.where(layout.images[0] == 2, 2, 0)]),
  )
  arrays = random_case(rng, batch=2, length=LENGTH)
  mix = rng.normal(size=arrays[0].shape)

  def differentiate(make):
    return jax.jit(jax.grad(lambda arrays: (make()(*arrays) * mix).sum()))(arrays)

  wanted = differentiate(lambda: attention.make_biased(attention.make_bias(layout)))
  with sharding.use(sharding.make_mesh(2, 1, 2, devices=jax.devices()[:4])):
    found = differentiate(lambda: attention.make_attend("splash", layout))
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_cudnn_is_told_that_keys_are_not_in_order(monkeypatch):
  layout = lay_out(100)
  arrays = random_case(np.random.default_rng(2), batch=1, length=LENGTH)
  wanted = plain_attention(*arrays, layout)
  plain, asked = jax.nn.dot_product_attention, []

  def stand_in(*arrays, implementation, **kwargs):
    asked.append((implementation, kwargs["is_causal"]))
    return plain(*arrays, **kwargs)

  monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
  found = run(arrays, layout, "cudnn")
  seen = layout.segments[0] > 0
  np.testing.assert_allclose(found[:, seen], wanted[:, seen], atol=1e-5)
  run(arrays, layout._replace(images=None), "cudnn")
  assert asked == [("cudnn", False), ("cudnn", True)]


CONFIG = packed.make_config(both_ways=True, select="full", vision_class_token=False)


def test_images_are_numbered_where_they_begin():
  count = CONFIG.patches
  one, other = np.arange(count), np.arange(3 * count, 4 * count)
  text = np.full(2, -1)
  rows = [[text, one, other, text], [other, text, one, text]]
  patches = np.stack([np.concatenate(row) for row in rows]).astype(np.int32)
  numbers = np.asarray(image_numbers.number_images(CONFIG, patches))
  wanted = [[0, 0, *[1] * count, *[2] * count, 0, 0]]
  wanted.append([*[1] * count, 0, 0, *[2] * count, 0, 0])
  np.testing.assert_array_equal(numbers, wanted)
  causal = dataclasses.replace(CONFIG, both_ways=False)
  assert image_numbers.number_images(causal, patches) is None


def make_batch(config):
  rng = np.random.default_rng(3)
  samples = [packed.random_sample(config, rng, 9, image) for image in (True, False)]
  return packed.pack(config, [samples], 24)


@pytest.mark.parametrize("both_ways", [True, False])
def test_the_first_token_of_an_image_reads_the_last_one(both_ways):
  config = dataclasses.replace(CONFIG, both_ways=both_ways)
  batch, params = make_batch(config), packed.random_params(config)
  first, *_, last = np.flatnonzero(batch.patches[0] >= 0)
  changed = batch.patches.copy()
  changed[0, last] = 1  # another feature of the image stands there
  states = jax.jit(mllm.hidden_states, static_argnums=0)
  before, after = (
    np.asarray(states(config, params, batch._replace(patches=patches)))[0]
    for patches in (batch.patches, changed)
  )
  apart = np.abs(before - after).max(-1) > 1e-4
  own = batch.segments[0] == 1
  places = np.arange(len(own))
  np.testing.assert_array_equal(apart, own & (places >= (first if both_ways else last)))


def test_the_check_of_kernels_has_the_model_s_images():
  batch = make_batch(CONFIG)
  params = packed.random_params(CONFIG)
  plain = dataclasses.replace(CONFIG, attention="xla")
  causal = dataclasses.replace(plain, both_ways=False)
  one, other = (
    np.asarray(attention_check.run_sample(config, params, batch)["one attention"])
    for config in (plain, causal)
  )
  apart = np.abs(one - other).max((2, 3)) > 1e-3
  seen = batch.patches >= 0
  last = np.flatnonzero(seen[0])[-1]
  wanted = seen.copy()
  wanted[0, last] = False
  np.testing.assert_array_equal(apart, wanted)


def test_an_image_costs_the_later_tokens_that_are_seen():
  causal = dataclasses.replace(CONFIG, both_ways=False)
  both, one = (
    work.make_rates(config, mllm.abstract(config), ("decoder",))
    for config in (CONFIG, causal)
  )
  pairs = CONFIG.patches * (CONFIG.patches - 1) // 2
  assert both.tile - one.tile == one.key * pairs > 0
  assert both._replace(tile=0) == one._replace(tile=0)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2)])
def test_the_mesh_does_not_change_a_state(mesh):
  rng, rows = np.random.default_rng(4), []
  for number in range(8):
    kinds = [(3 + number, True), (4, False), (5, True)]
    rows.append([packed.random_sample(CONFIG, rng, *kind) for kind in kinds])
  batch, params = packed.pack(CONFIG, rows, 40), packed.random_params(CONFIG)
  states = jax.jit(mllm.hidden_states, static_argnums=0)
  alone = np.asarray(states(CONFIG, params, batch))
  mesh = sharding.make_mesh(*mesh)
  layout = sharding.parameter_shardings(params, axes.logical_axes(params), mesh)
  with sharding.use(mesh):
    laid = jax.device_put(params, layout), sharding.put_rows(batch, mesh)
    found = np.asarray(states(CONFIG, *laid))
  real = batch.segments > 0
  np.testing.assert_allclose(found[real], alone[real], atol=1e-5)
