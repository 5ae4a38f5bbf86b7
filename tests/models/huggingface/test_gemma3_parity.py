"""Agreement with transformers' Gemma 3, on rows of 0 to 3 images."""

import dataclasses
import pathlib
import tempfile

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from mllm_selector_jax.models import attention, huggingface
from tests.models import packed, tiny, torch_inputs
from tests.models.huggingface.test_bfloat16 import compute_ours, compute_theirs
from tests.models.huggingface.test_parity import run

torch.set_num_threads(1)
EXAMPLES = 6  # with 0, 1 and 3 images
# Pixels of an image, of a patch, and tokens of an image.
SIZES = [(32, 8, 4), (32, 8, 16), (32, 8, 1), (30, 10, 9), (48, 8, 9)]


def compute_both(folder, both_ways=True, **chosen):
  """Logits and losses of packed rows, and of each example on its own in torch."""
  base = tiny.make_base(
    folder / "base", family="gemma3", max_position_embeddings=512, **chosen
  )
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder / "out", config, params, base)
  encoder = torch_inputs.open_encoder(base)
  examples = dict(enumerate(torch_inputs.make_examples(encoder, EXAMPLES)))
  run.clear_cache()  # tests change what it is compiled of
  own = dataclasses.replace(config, both_ways=both_ways)
  ours = compute_ours(own, params, examples)
  theirs = compute_theirs(folder / "out", config, examples, torch.float32)
  return ours, theirs


def assert_same(ours, theirs):
  for item, (logits, loss) in theirs.items():
    assert logits.std() > 0.3  # or the tolerance would say nothing
    np.testing.assert_allclose(ours[item][0], logits, atol=1e-5)
    np.testing.assert_allclose(ours[item][1], loss, rtol=1e-5)


@st.composite
def overrides(draw):
  """Any tiny model of the family."""

  def one(*values):
    return draw(st.sampled_from(values))

  (side, patch, tokens), layers = one(*SIZES), one(1, 2, 3)
  kind = st.sampled_from(["full_attention", "sliding_attention"])
  return {
    "num_key_value_heads": one(1, 2, 4),
    "num_hidden_layers": layers,
    "layer_types": draw(st.lists(kind, min_size=layers, max_size=layers)),
    "sliding_window": one(2, 7, 300),
    "head_dim": one(8, 12),
    "query_pre_attn_scalar": one(8, 30),
    "attention_bias": draw(st.booleans()),
    "tie_word_embeddings": draw(st.booleans()),
    "rope_parameters": {
      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": one(50.0, 1e4)},
    },
    "vision_image_size": side,
    "vision_patch_size": patch,
    "vision_num_hidden_layers": one(1, 2),
    "vision_layer_norm_eps": one(1e-6, 1e-2),
    "llava_mm_tokens_per_image": tokens,
  }


@pytest.mark.exhaustive
@hypothesis.settings(
  max_examples=6,
  deadline=None,
  derandomize=True,
  database=None,
  phases=[hypothesis.Phase.generate],  # every example compiles
)
@hypothesis.given(overrides())
def test_models_agree_whatever_the_configuration(chosen):
  with tempfile.TemporaryDirectory() as folder:
    assert_same(*compute_both(pathlib.Path(folder), **chosen))


@pytest.mark.parametrize("dense", [4096, 0], ids=["all pairs", "blocks"])
def test_both_ways_of_attending_agree(tmp_path, monkeypatch, dense):
  monkeypatch.setattr(attention, "DENSE", dense)
  assert_same(*compute_both(tmp_path))


def test_a_causal_model_would_differ(tmp_path):
  ours, theirs = compute_both(tmp_path, both_ways=False)
  apart = [np.abs(ours[item][0] - theirs[item][0]).max() for item in theirs]
  pictured = [bool(torch_inputs.find_sizes(item)) for item in theirs]
  assert [distance > 1e-2 for distance in apart] == pictured
