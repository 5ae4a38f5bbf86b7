"""Agreement with transformers' Pixtral and Mistral 3, float32."""

import dataclasses

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st

from mllm_selector_jax.data.images.image_forms import FORMS
from mllm_selector_jax.models import native_tower
from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.models.rotation import rotate
from mllm_selector_jax.types import ImageOptions, ImageTokens
from tests.models import native_inputs, packed
from tests.models.huggingface.test_native_parity import (
  PARTS,
  ROWS,
  assert_packed_agree,
  read,
)
from tests.models.tiny_qwen import TEXT

torch.set_num_threads(1)
LENGTH = 176
TOKENS = ImageTokens(4, end=(6,), between=(5,))
VISION = {
  "model_type": "pixtral",
  "hidden_size": 16,
  "intermediate_size": 20,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "patch_size": 4,
  "image_size": 64,
  "hidden_act": "silu",
}
# As Ministral 3's, with a context before its stretching that holds the rows.
YARN = {
  "rope_type": "yarn",
  "rope_theta": 1e4,
  "factor": 4.0,
  "original_max_position_embeddings": 128,
  "beta_fast": 32.0,
  "beta_slow": 1.0,
  "mscale": 1.0,
  "mscale_all_dim": 1.0,
  "llama_4_scaling_beta": 0.1,
}


def make_pixtral(text=(), vision=(), **fields):
  fields = {"multimodal_projector_bias": True, "tie_word_embeddings": False, **fields}
  return transformers.LlavaConfig(
    vision_config={**VISION, **dict(vision)},
    text_config={**TEXT, "model_type": "mistral", "head_dim": 8, **dict(text)},
    image_token_index=4,
    vision_feature_layer=-1,
    vision_feature_select_strategy="full",
    **fields,
  )


def make_mistral3(text=(), vision=(), **fields):
  fields = {"tie_word_embeddings": False, **fields}
  return transformers.Mistral3Config(
    vision_config={**VISION, "hidden_act": "gelu", **dict(vision)},
    text_config={**TEXT, "model_type": "mistral", "head_dim": 8, **dict(text)},
    image_token_index=4,
    **fields,
  )


MINISTRAL = {"model_type": "ministral3", "rope_parameters": YARN}
CASES = {
  "pixtral": make_pixtral(),
  "pixtral, no biases": make_pixtral(multimodal_projector_bias=False),
  "pixtral, five layers": make_pixtral(vision={"num_hidden_layers": 5}),
  "mistral3": make_mistral3(),
  "mistral3, wide heads": make_mistral3(
    text={"head_dim": 12, "rms_norm_eps": 0.1}, vision={"num_attention_heads": 1}
  ),
  "mistral3, tied": make_mistral3(
    text={"tie_word_embeddings": True}, tie_word_embeddings=True
  ),
  "mistral3, biases": make_mistral3(multimodal_projector_bias=True),
  "ministral3": make_mistral3(text=MINISTRAL),
}


def lay_out(config):
  """From rows and columns of tiles to the layout of the family's form."""
  side = config.vision.image_size
  options = ImageOptions(
    side, (0.5,) * 3, (0.5,) * 3, form="pixtral", grid=1, longest_edge=4096
  )

  def lay_out_grid(rows, columns):
    return FORMS["pixtral"].lay_out(options, TOKENS, columns * side, rows * side, 1)

  return lay_out_grid


def make_torch_images(config, images):
  """`pixel_values` and `image_sizes`, padded as transformers' processor does."""
  mean, deviation = map(np.array, (config.image_mean, config.image_std))
  side, sizes, pixels = config.vision.image_size, [], []
  for (rows, columns), cut in images:
    whole = cut.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
    whole = whole.reshape(rows * side, columns * side, 3)
    pixels.append(((whole / 255.0 - mean) / deviation).transpose(2, 0, 1))
    sizes.append(whole.shape[:2])
  most = np.max(sizes, axis=0)
  padded = [
    np.pad(each, [(0, 0), *((0, m - n) for m, n in zip(most, size, strict=True))])
    for each, size in zip(pixels, sizes, strict=True)
  ]
  return {
    "pixel_values": torch.tensor(np.stack(padded).astype(np.float32)),
    "image_sizes": torch.tensor(sizes),
  }


def make_torch_row(config, example):
  """What a model in transformers takes for an example."""
  sample, tiles = example
  images = [
    (image.layout.grid, cut) for image, cut in zip(sample.images, tiles, strict=True)
  ]
  tokens = torch.tensor(sample.tokens[None], dtype=torch.long)
  return {
    "input_ids": tokens,
    **(make_torch_images(config, images) if images else {}),
  }


def load_whole(hf_config, config, params):
  """The model of transformers with our parameters."""
  model = transformers.AutoModelForImageTextToText.from_config(hf_config).eval()
  own = {}
  for name, array in mapping.to_tensors(config, params):
    name = "model." + name.replace("language_model.model.", "language_model.")
    own[name.replace("model.language_model.lm_head", "lm_head")] = torch.tensor(array)
  missing, unexpected = model.load_state_dict(own, strict=False)
  tied = ["lm_head.weight"] if config.decoder.tied else []
  assert not unexpected and missing == tied
  return model


def assert_models_agree(hf_config, rows=ROWS):
  """Packed rows, against each of their samples on its own in torch."""
  config = read(hf_config)
  params = packed.random_params(config)
  model = load_whole(hf_config, config, params)
  rng = np.random.default_rng(0)
  drawn = [
    [native_inputs.draw_sample(config, rng, parts, lay_out(config)) for parts in row]
    for row in rows
  ]
  batch = native_inputs.pack_rows(config, drawn, LENGTH)
  assert batch.axes is None and batch.places is not None
  assert_packed_agree(config, params, model, drawn, batch, make_torch_row)


@pytest.mark.parametrize("name", CASES)
def test_models_agree(name):
  assert_models_agree(CASES[name])


@st.composite
def hf_configs(draw):
  """Any tiny model of these families."""

  def one(*values):
    return draw(st.sampled_from(values))

  heads, tied = one(1, 2, 3), draw(st.booleans())
  vision = {
    "num_hidden_layers": one(1, 2, 3, 5),
    "num_attention_heads": heads,
    "hidden_size": heads * one(4, 8, 12),
    "patch_size": one(2, 3, 4),
    "hidden_act": one("silu", "gelu"),
  }
  text = {
    "num_hidden_layers": one(1, 2, 3, 5),
    "num_key_value_heads": one(1, 2, 4),
    "head_dim": one(8, 12),
    "rms_norm_eps": one(1e-5, 1e-2),
    "sliding_window": one(None, 7),
    "tie_word_embeddings": tied,
  }
  if draw(st.booleans()):
    text |= MINISTRAL
  make = one(make_pixtral, make_mistral3)
  bias = draw(st.booleans())
  return make(text, vision, multimodal_projector_bias=bias, tie_word_embeddings=tied)


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)
@hypothesis.given(hf_configs(), st.lists(PARTS, min_size=1, max_size=3))
def test_models_agree_whatever_the_configuration(hf_config, samples):
  counts = [sum(map(count_tokens, parts)) for parts in samples]
  # Ministral 3 is run on rows within its first context alone.
  samples = [parts for parts, n in zip(samples, counts, strict=True) if n <= 128]
  hypothesis.assume(samples)
  hypothesis.assume(sum(sum(map(count_tokens, parts)) for parts in samples) <= LENGTH)
  assert_models_agree(hf_config, [samples])


def count_tokens(part):
  return part if isinstance(part, int) else part[0] * (part[1] + 1)


def test_a_row_beyond_the_first_context_of_ministral3_would_differ():
  short = {**YARN, "original_max_position_embeddings": 32}
  hf_config = make_mistral3(text={**MINISTRAL, "rope_parameters": short})
  with pytest.raises(AssertionError, match="Not equal to tolerance"):
    assert_models_agree(hf_config)
  decoder = find_family(hf_config).read_decoder(hf_config.text_config)
  assert (decoder.max_length, decoder.limit) == (32, "llama_4_scaling_beta 0.1")


@pytest.mark.parametrize("alternating", [False, True])
def test_what_patches_see_of_one_another_depends_on_their_distance(alternating):
  rng = np.random.default_rng(0)
  query, key = rng.normal(size=(2, 1, 1, 1, 12))
  vision = dataclasses.replace(
    packed.NATIVE.vision, width=24, heads=2, alternating=alternating
  )

  def score(*places):
    rows = np.array([[[1, *place, 9, 9] for place in places]], np.int32)
    where = native_tower.PatchPlaces(rows, grid=1, window=0)
    cos, sin = native_tower.find_rotation(where, vision)
    turned = [
      rotate(x, cos[:, n : n + 1], sin[:, n : n + 1])
      for n, x in enumerate((jnp.asarray(query), jnp.asarray(key)))
    ]
    return float((turned[0] * turned[1]).sum())

  assert score((0, 0), (2, 3)) == pytest.approx(score((4, 1), (6, 4)), rel=1e-4)
  assert score((5, 5), (5, 5)) == pytest.approx((query * key).sum(), rel=1e-4)
  assert score((0, 0), (2, 3)) != pytest.approx(score((0, 0), (3, 2)), rel=1e-2)


def test_merged_patches_lie_as_torch_unfolds_them():
  """One block of patches, each channel of which is its own number."""
  leaf = mapping.Leaf("projector/narrow/kernel", ("x",), False, (12, 3), "unfolded")
  blocks = np.arange(12.0).reshape(2, 2, 3)  # row, column, channel
  unfolded = torch.nn.functional.unfold(
    torch.tensor(blocks).permute(2, 0, 1)[None], kernel_size=2, stride=2
  )[0, :, 0].numpy()
  ours = np.random.default_rng(0).normal(size=(12, 3))
  theirs = leaf.to_theirs(ours)
  assert theirs.shape == leaf.shape == (3, 12)
  np.testing.assert_allclose(theirs @ unfolded, blocks.reshape(-1) @ ours)
  np.testing.assert_array_equal(leaf.to_ours(theirs), ours)
