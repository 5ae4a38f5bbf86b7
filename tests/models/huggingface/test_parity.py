"""Agreement with transformers' own LLaVA, in torch, float32."""

import functools
import pathlib
import tempfile

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st

from mllm_selector_jax import losses
from mllm_selector_jax.models import huggingface, mllm
from tests import compiling
from tests.models import packed, tiny
from tests.models.huggingface import bases

torch.set_num_threads(1)

CASES = {
  "grouped": {},
  "tied": {
    "tie_word_embeddings": True,
    "hidden_size": 48,
    "num_attention_heads": 2,
    "vision_hidden_act": "gelu",
    "llava_vision_feature_layer": -1,
  },
  "one key head": {
    "num_key_value_heads": 1,
    "head_dim": 12,
    "num_hidden_layers": 3,
    "vision_num_hidden_layers": 3,
    "vision_image_size": 24,
    "vision_patch_size": 6,
    "llava_vision_feature_layer": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
  },
  "llama with biases": {"attention_bias": True},
  "class token kept": {"llava_vision_feature_select_strategy": "full"},
  "mistral": {"decoder": "mistral", "sliding_window": 6},
  "qwen2": {"decoder": "qwen2", "rms_norm_eps": 1e-6},
  "qwen3": {"decoder": "qwen3", "head_dim": 12, "attention_bias": True},
  "qwen2 with windows in some layers": {
    "decoder": "qwen2",
    "num_hidden_layers": 3,
    "use_sliding_window": True,
    "sliding_window": 5,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
  },
  "gemma3": {
    "decoder": "gemma3_text",
    "num_hidden_layers": 3,
    "head_dim": 12,
    "query_pre_attn_scalar": 10,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
    "tie_word_embeddings": True,
    "tower": "siglip_vision_model",
    "llava_vision_feature_layer": -1,
  },
  "qwen3, dinov2": {
    "decoder": "qwen3",
    "head_dim": 8,
    "tower": "dinov2",
    "tie_word_embeddings": True,
    "llava_vision_feature_layer": -1,
  },
  "internvl": {"family": "internvl", "decoder": "qwen2"},
  "internvl 6b": {
    "family": "internvl",
    "decoder": "qwen3",
    "head_dim": 8,
    "vision_norm_type": "rms_norm",
    "vision_use_qk_norm": True,
  },
  "several layers": {
    "vision_num_hidden_layers": 6,
    "llava_vision_feature_layer": [-2, 0, 3, -6],
  },
  "vipllava": {"family": "vipllava"},
  "vipllava, one layer": {
    "family": "vipllava",
    "decoder": "mistral",
    "tower": "siglip_vision_model",
    "llava_vision_feature_layer": -2,
    "llava_projector_layernorm_eps": 0.1,
  },
  "qwen2 tied, siglip": {
    "decoder": "qwen2",
    "tower": "siglip_vision_model",
    "tie_word_embeddings": True,
    "llava_vision_feature_layer": -1,
  },
  # As google/siglip-so400m-patch14-384: the last pixels make no whole patch.
  "siglip with pixels left over": {
    "tower": "siglip_vision_model",
    "vision_image_size": 30,
    "llava_vision_feature_layer": -1,
  },
  "clip with pixels left over": {"vision_image_size": 39, "vision_patch_size": 10},
  "siglip without its first patch": {
    "tower": "siglip_vision_model",
    "llava_vision_feature_select_strategy": "default",
  },
}


@st.composite
def overrides(draw):
  """Any tiny model of the supported families."""

  def one(*values):
    return draw(st.sampled_from(values))

  decoder = one("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
  tower = one("clip_vision_model", "siglip_vision_model", "dinov2", "internvl_vision")
  kv_heads, head_dim, vision_layers = one(1, 2), one(8, 12), one(1, 2, 3)
  scaling = draw(st.sampled_from([{"rope_type": "default"}, *SCALINGS]))
  # A list may have 0; alone, it takes another way in transformers 5.23, which fails.
  number = st.integers(-vision_layers - 1, vision_layers)
  layer = draw(number.filter(bool) | st.lists(number, min_size=1, max_size=4))
  found = {
    "family": one("llava", "vipllava"),
    "decoder": decoder,
    "tower": tower,
    "hidden_size": 24 if decoder != "qwen2" else 4 * head_dim,
    "num_attention_heads": 4 if decoder == "qwen2" else kv_heads * one(1, 2, 3),
    "num_key_value_heads": kv_heads,
    "num_hidden_layers": one(1, 2, 3),
    "intermediate_size": one(20, 48),
    "tie_word_embeddings": draw(st.booleans()),
    "rope_parameters": {"rope_theta": one(100.0, 1e4, 1e6), **scaling},
    "vision_num_hidden_layers": vision_layers,
    "vision_hidden_act": one("quick_gelu", "gelu", "gelu_pytorch_tanh"),
    "vision_patch_size": one(8, 9, 16),
    "llava_vision_feature_layer": layer,
    "llava_vision_feature_select_strategy": one("default", "full"),
  }
  if found["family"] == "vipllava":
    found["llava_projector_layernorm_eps"] = one(1e-5, 1e-6, 1e-2)
  if decoder != "qwen2":
    found["head_dim"] = head_dim
  if decoder in ("llama", "qwen3", "gemma3_text"):
    found["attention_bias"] = draw(st.booleans())
  if decoder in ("qwen2", "qwen3", "gemma3_text"):
    kind = st.sampled_from(["full_attention", "sliding_attention"])
    layers = found["num_hidden_layers"]
    found["layer_types"] = draw(st.lists(kind, min_size=layers, max_size=layers))
    found |= {"use_sliding_window": True, "sliding_window": one(5, 64)}
  if decoder == "gemma3_text":
    del found["use_sliding_window"]
    found["query_pre_attn_scalar"] = one(head_dim, 7)
    found["rope_parameters"] = {
      "full_attention": found["rope_parameters"],
      "sliding_attention": {"rope_type": "default", "rope_theta": one(50.0, 1e4)},
    }
  if decoder == "mistral":
    found["sliding_window"] = one(None, 5, 64)
  if tower == "dinov2":
    found["vision_qkv_bias"] = draw(st.booleans())
    found["vision_use_mask_token"] = draw(st.booleans())
  if tower == "internvl_vision":
    found |= {
      "vision_attention_bias": draw(st.booleans()),
      "vision_use_qk_norm": draw(st.booleans()),
      "vision_norm_type": one("layer_norm", "rms_norm"),
      "vision_use_mean_pooling": draw(st.booleans()),
    }
  return found


# Of the kinds that stretch a context; parameters as published ones have them.
SCALINGS = (
  {"rope_type": "linear", "factor": 4.0},
  {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
  {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
  },
)


def load_torch(folder):
  model, info = transformers.AutoModelForImageTextToText.from_pretrained(
    folder, output_loading_info=True, dtype=torch.float32
  )
  for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not info[problem], info
  return model.eval()


def torch_logits(model, config, tokens, pixels):
  images = None
  if pixels is not None:
    scaled = (pixels / 255.0 - np.array(config.image_mean)) / np.array(config.image_std)
    images = torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=model.dtype)
  with torch.no_grad():
    out = model(input_ids=torch.tensor(tokens[None]), pixel_values=images)
  return out.logits[0].numpy()


@functools.partial(jax.jit, static_argnums=0, compiler_options=compiling.AS_USERS)
def run(config, params, batch):
  """Logits of every place, and losses as training and scoring have them."""
  hidden = mllm.hidden_states(config, params, batch)
  head = mllm.head(config, params)
  logits = jnp.matmul(hidden, head.astype(hidden.dtype), precision="highest")
  with mllm.precision(config):
    states = mllm.hidden_states(config, params, batch, batch.predict)
    found = losses.supervised_losses(states, head, batch.targets)
  return logits, found


def supervise(batch, rows):
  """The batch with every token of a sample but its first supervised."""
  predict, targets = np.zeros((2, len(rows), batch.tokens.shape[1]), np.int32)
  for row, samples in enumerate(rows):
    places = np.concatenate(
      [np.flatnonzero(batch.segments[row] == n + 1)[:-1] for n in range(len(samples))]
    )
    predict[row, : len(places)] = places
    targets[row, : len(places)] = batch.tokens[row, places + 1]
  return batch._replace(predict=predict, targets=targets)


def assert_agree(model, config, params, tolerance=1e-5):
  """Samples packed two and three to a row, against each on its own in torch."""
  rng = np.random.default_rng(0)
  rows = [
    [
      packed.random_sample(config, rng, size, image)
      for size, image in ((9, True), (12, False), (3, True))
    ],
    [
      packed.random_sample(config, rng, size, image) for size, image in ((2, 0), (7, 1))
    ],
  ]
  batch = supervise(packed.pack(config, rows, 64), rows)
  logits, token_losses = map(np.asarray, run(config, params, batch))
  for row, samples in enumerate(rows):
    start = learned = 0
    for tokens, pixels in samples:
      wanted = torch_logits(model, config, tokens, pixels)
      assert wanted.std() > 0.3  # or the tolerance would say nothing
      found = logits[row, start : start + len(tokens)]
      np.testing.assert_allclose(found, wanted, atol=tolerance)
      loss = torch.nn.functional.cross_entropy(
        torch.tensor(wanted[:-1]), torch.tensor(tokens[1:])
      )
      own = token_losses[row, learned : learned + len(tokens) - 1].mean()
      np.testing.assert_allclose(own, loss, rtol=tolerance)
      start += len(tokens)
      learned += len(tokens) - 1


@pytest.mark.parametrize("name", CASES)
def test_transformers_agrees_on_what_we_write(tmp_path, name):
  base = tiny.make_base(tmp_path / "base", **CASES[name])
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "out", config, params, base)
  assert_agree(load_torch(tmp_path / "out"), config, params)


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)
@hypothesis.given(overrides())
def test_transformers_agrees_whatever_the_configuration(chosen):
  with tempfile.TemporaryDirectory() as folder:
    base = tiny.make_base(pathlib.Path(folder) / "base", **chosen)
    config = huggingface.read_config(base)
    params = packed.random_params(config)
    huggingface.write_model(pathlib.Path(folder) / "out", config, params, base)
    assert_agree(load_torch(pathlib.Path(folder) / "out"), config, params)


def test_we_agree_on_what_transformers_writes(tmp_path):
  # As version 5 saves a fresh model: its own tensor names, in shards.
  base = tiny.make_base(tmp_path / "base")
  model = load_torch(base)
  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  folder = tmp_path / "saved"
  model.save_pretrained(folder, max_shard_size="100KB")
  assert (folder / "model.safetensors.index.json").exists()
  for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
    (folder / name).write_bytes((base / name).read_bytes())
  config = huggingface.read_config(folder)
  assert_agree(model, config, huggingface.read_params(folder, config))


def test_a_fresh_model_of_transformers_is_read(tmp_path):
  hf_config = tiny.make_hf_config()
  torch.manual_seed(0)
  model = transformers.LlavaForConditionalGeneration(hf_config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model.save_pretrained(tmp_path)
  # The names that version 4 does not know.
  assert "vision_tower.pre_layrnorm.weight" in bases.read_tensors(tmp_path)
  tiny.make_tokenizer().save_pretrained(tmp_path)
  tiny.make_image_processor().save_pretrained(tmp_path)
  config = huggingface.read_config(tmp_path)
  assert_agree(model, config, huggingface.read_params(tmp_path, config))
