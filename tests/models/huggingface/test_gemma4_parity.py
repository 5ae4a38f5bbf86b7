"""Agreement with transformers' Gemma 4, on rows of 0 to 3 images."""

import dataclasses
import pathlib
import tempfile

import hypothesis
import jax
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from mllm_selector_jax.models import attention, huggingface
from tests.models import packed, torch_inputs
from tests.models.huggingface import test_bfloat16
from tests.models.huggingface.test_bfloat16 import compute_ours, compute_theirs
from tests.models.huggingface.test_gemma3_parity import assert_same
from tests.models.huggingface.test_parity import run

torch.set_num_threads(1)
EXAMPLES = 6  # with 0, 1 and 3 images


def compute_both(folder, examples=EXAMPLES, dtype="float32", **chosen):
  """Logits and losses of packed rows, and of each example on its own in torch."""
  both_ways = chosen.pop("both_ways", True)
  base = torch_inputs.make_base(folder / "base", "gemma4", **chosen)
  config = huggingface.read_config(base, dtype=dtype)
  params = packed.random_params(config)
  huggingface.write_model(folder / "out", config, params, base)
  encoder = torch_inputs.open_encoder(base)
  rows = dict(enumerate(torch_inputs.make_examples(encoder, examples)))
  run.clear_cache()  # tests change what it is compiled of
  own = dataclasses.replace(config, both_ways=both_ways and config.both_ways)
  with jax.enable_x64(dtype == "float64"):
    ours = compute_ours(own, jax.tree.map(lambda x: np.asarray(x, dtype), params), rows)
  theirs = compute_theirs(folder / "out", config, rows, getattr(torch, dtype))
  return ours, theirs


@st.composite
def overrides(draw):
  """Any tiny model of the family."""

  def one(*values):
    return draw(st.sampled_from(values))

  layers = one(2, 3, 6)
  kinds = st.sampled_from(["full_attention", "sliding_attention"])
  inner = draw(st.lists(kinds, min_size=layers - 2, max_size=layers - 2))
  wave = {"rope_type": "proportional", "partial_rotary_factor": one(0.25, 0.5, 1.0)}
  return {
    "num_key_value_heads": one(1, 2, 4),
    "num_global_key_value_heads": one(None, 1, 2),
    "attention_k_eq_v": draw(st.booleans()),
    "num_hidden_layers": layers,
    "layer_types": ["sliding_attention", *inner, "full_attention"],
    "sliding_window": one(2, 20, 300),
    "head_dim": one(4, 6),
    "global_head_dim": one(4, 8),
    "attention_bias": draw(st.booleans()),
    "tie_word_embeddings": draw(st.booleans()),
    "final_logit_softcapping": one(None, 2.0, 30.0),
    "use_bidirectional_attention": one(None, "vision"),
    "rope_parameters": {
      "full_attention": {**wave, "rope_theta": 1e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": one(50.0, 1e4)},
    },
    "vision_standardize": draw(st.booleans()),
    "vision_num_hidden_layers": one(1, 2),
  }


@hypothesis.settings(
  max_examples=4,
  deadline=None,
  derandomize=True,
  database=None,
  phases=[hypothesis.Phase.generate],  # every example compiles
)
@hypothesis.given(overrides())
def test_models_agree_whatever_the_configuration(chosen):
  with tempfile.TemporaryDirectory() as folder:
    assert_same(*compute_both(pathlib.Path(folder), examples=3, **chosen))


@pytest.mark.parametrize("dense", [4096, 0], ids=["all pairs", "blocks"])
def test_both_ways_of_attending_agree(tmp_path, monkeypatch, dense):
  monkeypatch.setattr(attention, "DENSE", dense)
  assert_same(*compute_both(tmp_path))


def test_a_causal_model_would_differ(tmp_path):
  ours, theirs = compute_both(tmp_path, examples=3, both_ways=False)
  apart = [np.abs(ours[item][0] - theirs[item][0]).max() for item in theirs]
  pictured = [bool(torch_inputs.find_sizes(item)) for item in theirs]
  assert [distance > 1e-2 for distance in apart] == pictured


class Waves(torch.nn.Module):
  """Rotary angles in float64, which transformers computes in float32."""

  def __init__(self, inner, waves):
    super().__init__()
    self.inner, self.waves = inner, waves

  def forward(self, x, position_ids, layer_type=None):
    turns = position_ids[..., None].double() * torch.tensor(self.waves[layer_type])
    if layer_type is None:
      turns = torch.cat([turns[:, :, n] for n in (0, 0, 1, 1)], dim=-1)
    else:
      turns = torch.cat([turns, turns], dim=-1)
    return turns.cos(), turns.sin()


def test_agreement_is_of_the_mathematics_not_of_the_rounding(tmp_path, monkeypatch):
  # What transformers brings to float32 stays in float64.
  monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
  load = test_bfloat16.transformers.AutoModelForImageTextToText.from_pretrained

  def load_exactly(folder, dtype):
    model, config = load(folder, dtype=dtype), huggingface.read_config(folder)
    vision, decoder = config.vision, config.decoder
    half = vision.head_dim // 2
    own = vision.theta ** -(np.arange(0, half, 2) / half)
    tower, text = model.model.vision_tower.encoder, model.model.language_model
    tower.rotary_emb = Waves(tower.rotary_emb, {None: own})
    waves = {
      "full_attention": decoder.rope.frequencies(decoder.full.head_dim),
      "sliding_attention": decoder.window_rope.frequencies(decoder.head_dim),
    }
    text.rotary_emb = Waves(text.rotary_emb, waves)
    scale = torch.tensor(decoder.embedding_scale, dtype=dtype)
    text.embed_tokens.embed_scale = scale
    return model

  monkeypatch.setattr(
    test_bfloat16.transformers.AutoModelForImageTextToText,
    "from_pretrained",
    load_exactly,
  )
  plain = {"rms_norm_eps": 1e-6, "vision_rms_norm_eps": 1e-6, "global_head_dim": 12}
  ours, theirs = compute_both(tmp_path, 3, "float64", head_dim=8, **plain)
  for item, (logits, loss) in theirs.items():
    np.testing.assert_allclose(ours[item][0], logits, atol=1e-9)
    np.testing.assert_allclose(ours[item][1], loss, rtol=1e-9)
