"""Agreement with transformers' Gemma 4, on rows of 0 to 3 images."""

import dataclasses
import functools
import pathlib
import tempfile
from typing import NamedTuple

import hypothesis
import jax
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st

from mllm_selector_jax.models import attention, huggingface
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import Params
from tests.models import packed, torch_inputs
from tests.models.huggingface.test_bfloat16 import compute_ours, compute_theirs
from tests.models.huggingface.test_parity import run

torch.set_num_threads(1)
EXAMPLES = 3  # with 0, 1 and 3 images


class Case(NamedTuple):
  """A model, rows of it, and what transformers makes of each row alone."""

  config: MllmConfig
  params: Params
  rows: dict
  theirs: dict

  def assert_same(self, atol=1e-5, rtol=1e-5, **changed):
    """Compares logits and losses of packed rows with transformers'."""
    for item, (logits, loss) in self.run(**changed).items():
      wanted, wanted_loss = self.theirs[item]
      assert wanted.std() > 0.3  # or the tolerance would say nothing
      np.testing.assert_allclose(logits, wanted, atol=atol)
      np.testing.assert_allclose(loss, wanted_loss, rtol=rtol)

  def run(self, **changed):
    """Logits and losses of each row; the config may be changed."""
    run.clear_cache()  # tests change what it is compiled of
    config = dataclasses.replace(self.config, **changed)
    with jax.enable_x64(config.dtype == "float64"):
      params = jax.tree.map(lambda x: np.asarray(x, config.dtype), self.params)
      return compute_ours(config, params, self.rows)


def make_case(folder, family="gemma4", dtype="float32", **chosen):
  base = torch_inputs.make_base(folder / "base", family, **chosen)
  config = huggingface.read_config(base, dtype=dtype)
  params = packed.random_params(config)
  huggingface.write_model(folder / "out", config, params, base)
  encoder = torch_inputs.open_encoder(base)
  rows = dict(enumerate(torch_inputs.make_examples(encoder, EXAMPLES)))
  theirs = compute_theirs(folder / "out", config, rows, getattr(torch, dtype))
  return Case(config, params, rows, theirs)


@pytest.fixture(scope="module", params=["gemma4", "gemma4e"])
def case(request, tmp_path_factory):
  return make_case(tmp_path_factory.mktemp(request.param), request.param)


@st.composite
def overrides(draw):
  """Any tiny model of the family."""

  def one(*values):
    return draw(st.sampled_from(values))

  layers, sharing = one(2, 3, 6), one(0, 1, 3, 5)
  kinds = st.sampled_from(["full_attention", "sliding_attention"])
  inner = draw(st.lists(kinds, min_size=layers - 2, max_size=layers - 2))
  # Layers that read keys and values, and both kinds before them.
  more = [*draw(st.lists(kinds, min_size=sharing, max_size=sharing))][:-1]
  tail = [*more, "full_attention"] if sharing else []
  wave = {"rope_type": "proportional", "partial_rotary_factor": one(0.25, 0.5, 1.0)}
  return {
    "num_key_value_heads": one(1, 2, 4),
    "num_global_key_value_heads": one(None, 1, 2),
    "attention_k_eq_v": draw(st.booleans()),
    "num_hidden_layers": layers + sharing,
    "layer_types": ["sliding_attention", *inner, "full_attention", *tail],
    "num_kv_shared_layers": sharing,
    "use_double_wide_mlp": draw(st.booleans()),
    # transformers runs no layers that share without these inputs.
    "hidden_size_per_layer_input": 6 if sharing else one(0, 6),
    "vocab_size_per_layer_input": one(320, 330),
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
    "rms_norm_eps": 1e-6,
    "vision_rms_norm_eps": 1e-6,
    "vision_standardize": draw(st.booleans()),
    "vision_num_hidden_layers": one(1, 2),
    "vision_use_clipped_linears": draw(st.booleans()),
  }


@pytest.mark.parametrize(
  "dense", [pytest.param(4096, marks=pytest.mark.exhaustive), 0]
)  # all pairs, and blocks
def test_both_ways_of_attending_agree(case, monkeypatch, dense):
  monkeypatch.setattr(attention, "DENSE", dense)
  case.assert_same()


@pytest.mark.parametrize(
  "changed",
  [
    {"both_ways_in_windows": False},
    pytest.param({"both_ways": False}, marks=pytest.mark.exhaustive),
  ],
)
@pytest.mark.parametrize("case", ["gemma4"], indirect=True)
def test_who_sees_whom_in_an_image_makes_a_difference(case, changed):
  ours = case.run(**changed)
  apart = [np.abs(ours[item][0] - case.theirs[item][0]).max() for item in ours]
  pictured = [bool(torch_inputs.find_sizes(item)) for item in ours]
  assert [distance > 1e-3 for distance in apart] == pictured


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


def load_exactly(load, folder, dtype):
  """A model in float64 that computes its angles and its embeddings' scale in it."""
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
  text.embed_tokens.embed_scale = torch.tensor(decoder.embedding_scale, dtype=dtype)
  if inputs := decoder.layer_inputs:
    scale = torch.tensor(inputs.width**0.5, dtype=dtype)
    text.embed_tokens_per_layer.embed_scale = scale
  return model


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
  # In float64, where rounding hides nothing: what transformers brings to float32 stays
  # in it.
  kind = transformers.AutoModelForImageTextToText
  load = functools.partial(load_exactly, kind.from_pretrained)
  with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
    patch.setattr(torch.Tensor, "float", torch.Tensor.double)
    patch.setattr(kind, "from_pretrained", load)
    make_case(pathlib.Path(folder), "gemma4", "float64", **chosen).assert_same(
      1e-9, 1e-9
    )
