"""Agreement with transformers on images of several tiles, float32."""

import functools
import pathlib
import tempfile

import hypothesis
import jax
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from mllm_selector_jax.models import huggingface
from tests.models import packed, tiles, tiny
from tests.models.huggingface.test_parity import load_torch, run, supervise

torch.set_num_threads(1)
LENGTH = 160


def torch_logits(model, config, sample, **sizes):
  scaled = (sample.tiles / 255.0 - np.array(config.image_mean)) / np.array(
    config.image_std
  )
  pixels = torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=model.dtype)
  if sizes:  # of one image, whose tiles are an axis of their own
    pixels = pixels[None]
  with torch.no_grad():
    out = model(
      input_ids=torch.tensor(sample.tokens[None]), pixel_values=pixels, **sizes
    )
  return out.logits[0].numpy()


def assert_agree(model, config, params, rows, sizes, tolerance=1e-5):
  """Packed rows against each of their samples on its own in torch."""
  plain = [[(sample.tokens, None) for sample in row] for row in rows]
  batch = supervise(tiles.pack(config, rows, LENGTH), plain)
  logits, losses = map(np.asarray, run(config, params, batch))
  for row, samples in enumerate(rows):
    start = learned = 0
    for sample, size in zip(samples, sizes[row], strict=True):
      wanted = torch_logits(model, config, sample, **size)
      assert wanted.std() > 0.3
      end, count = start + len(sample.tokens), len(sample.tokens) - 1
      np.testing.assert_allclose(logits[row, start:end], wanted, atol=tolerance)
      loss = torch.nn.functional.cross_entropy(
        torch.tensor(wanted[:-1]), torch.tensor(sample.tokens[1:])
      )
      own = losses[row, learned : learned + count].mean()
      np.testing.assert_allclose(own, loss, rtol=tolerance)
      start, learned = end, learned + count


def write(folder, **chosen):
  """A base and its export: the config, parameters, and torch's model of them."""
  base = tiny.make_base(folder / "base", **chosen)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder / "out", config, params, base)
  return config, params, load_torch(folder / "out")


@hypothesis.settings(max_examples=6, deadline=None, derandomize=True, database=None)
@hypothesis.given(
  decoder=st.sampled_from(["qwen2", "llama", "qwen3"]),
  norm=st.sampled_from(["layer_norm", "rms_norm"]),
  qk_norm=st.booleans(),
  bias=st.booleans(),
  pooled=st.booleans(),
  merge=st.sampled_from([1, 2, 4]),
  counts=st.permutations([1, 2, 3]),
)
def test_internvl_with_several_tiles(
  decoder, norm, qk_norm, bias, pooled, merge, counts
):
  with tempfile.TemporaryDirectory() as folder:
    config, params, model = write(
      pathlib.Path(folder),
      family="internvl",
      decoder=decoder,
      vision_norm_type=norm,
      vision_use_qk_norm=qk_norm,
      vision_attention_bias=bias,
      vision_use_mean_pooling=pooled,
      llava_downsample_ratio=1 / merge,
    )
  assert config.patches == 16 // merge**2
  rng = np.random.default_rng(0)
  first, second, third = (
    tiles.make_sample(config, rng, text, count)
    for text, count in zip((5, 8, 3), counts, strict=True)
  )
  assert_agree(model, config, params, [[first, second], [third]], [[{}, {}], [{}]])


def lay_out(model, config, size, **kwargs):
  """The features of an image by transformers' own packing, with taps and weights.

  Each tile's feature and the newline is a direction of its own there, so that what is
  packed says of which features it is the sum.
  """
  vision = model.config.vision_config
  height, width = size
  pinpoints = model.config.image_grid_pinpoints
  from transformers.models.llava_next.modeling_llava_next import (
    image_size_to_num_patches,
  )

  count = image_size_to_num_patches(size, pinpoints, vision.image_size)
  total = count * config.patches
  features = torch.eye(total + 1)
  own = features[:total].reshape(count, config.patches, total + 1)
  (found,), _ = model.model.pack_image_features(
    [own], torch.tensor([[height, width]]), image_newline=features[total], **kwargs
  )
  places, taps, weights = [], [], []
  for row in found.numpy():
    (index,) = np.nonzero(row)
    if len(index) == 1 and row[index[0]] == 1:
      places.append(tiles.NEWLINE if index[0] == total else index[0])
      continue
    assert 1 <= len(index) <= 4
    places.append(-2 - len(taps))
    taps.append(np.pad(index, (0, 4 - len(index))))
    weights.append(np.pad(row[index], (0, 4 - len(index))))
  return count, np.array(places), taps, weights


def assert_images_agree(model, config, params, sizes, **kwargs):
  """Two rows of images of these sizes (height, width)."""
  rng = np.random.default_rng(0)
  samples = []
  for size in sizes:
    count, places, taps, weights = lay_out(model, config, size, **kwargs)
    samples.append(tiles.make_sample(config, rng, 4, count, places, taps, weights))
  given = [{"image_sizes": torch.tensor([size])} for size in sizes]
  assert_agree(
    model, config, params, [samples[:2], samples[2:]], [given[:2], given[2:]]
  )
  return samples


# As Granite Vision is made, whose decoder multiplies newlines and features, too.
GRANITE_VISION = {
  "decoder": "granite",
  "attention_multiplier": 0.25,
  "embedding_multiplier": 3.0,
  "residual_multiplier": 0.4,
  "tie_word_embeddings": True,
  "tower": "siglip_vision_model",
  "vision_num_hidden_layers": 4,
  "llava_vision_feature_layer": [-4, -3, -2, -1],
}


@pytest.mark.parametrize(
  "chosen",
  [
    {"llava_vision_feature_layer": -2},
    {"llava_vision_feature_layer": [-1, 1]},
    GRANITE_VISION,
  ],
)
def test_llava_next_with_newlines(tmp_path, chosen):
  config, params, model = write(tmp_path, family="llava_next", **chosen)
  assert config.newline and config.patches == 16
  samples = assert_images_agree(
    model,
    config,
    params,
    [(64, 20), (30, 30), (40, 64)],
    vision_feature_select_strategy=config.select,
  )
  assert all((sample.features == tiles.NEWLINE).any() for sample in samples)
  assert not any(len(sample.taps) for sample in samples)


@pytest.mark.parametrize("layer", [-1, [-1, 1]])
def test_llava_onevision_with_interpolated_features(tmp_path, layer):
  config, params, model = write(
    tmp_path,
    family="llava_onevision",
    decoder="qwen2",
    llava_vision_feature_layer=layer,
  )
  samples = assert_images_agree(
    model,
    config,
    params,
    [(64, 20), (90, 30), (64, 64)],
    vision_aspect_ratio="anyres_max_1",
  )
  assert sum(len(sample.taps) for sample in samples) > 20


@functools.partial(jax.jit, static_argnums=0)
def gradients(config, params, batch):
  from mllm_selector_jax.models import mllm

  def total(params):
    return (mllm.hidden_states(config, params, batch) ** 2).sum()

  return jax.grad(total)(params)


@pytest.mark.parametrize("newlines", [0, 3])
def test_the_newline_learns_where_it_stands(newlines):
  config = packed.make_config(newline=True)
  params = packed.random_params(config)
  features = np.r_[np.arange(config.patches), [tiles.NEWLINE] * newlines]
  rng = np.random.default_rng(0)
  sample = tiles.make_sample(config, rng, 5, 1, features)
  batch = tiles.pack(config, [[sample], [sample]], 24)
  gradient = gradients(config, params, batch)["projector"]["newline"]
  assert (np.abs(gradient).max() > 1e-3) == bool(newlines)
