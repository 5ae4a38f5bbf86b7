"""Agreement with transformers' own LLaVA, in torch, float32."""

import functools

import jax
import numpy as np
import pytest
import torch
import transformers

from mllm_selector_jax.models import huggingface, mllm
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
}


def load_torch(folder):
  model, info = transformers.LlavaForConditionalGeneration.from_pretrained(
    folder, output_loading_info=True, dtype=torch.float32
  )
  for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not info[problem], info
  return model.eval()


def torch_logits(model, config, tokens, pixels):
  images = None
  if pixels is not None:
    scaled = (pixels / 255.0 - np.array(config.image_mean)) / np.array(config.image_std)
    images = torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=torch.float32)
  with torch.no_grad():
    out = model(input_ids=torch.tensor(tokens[None]), pixel_values=images)
  return out.logits[0].numpy()


@functools.partial(jax.jit, static_argnums=0)
def our_logits(config, params, batch):
  return mllm.hidden_states(config, params, batch) @ mllm.head(config, params)


def assert_agree(model, config, params):
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
  logits = np.asarray(our_logits(config, params, packed.pack(config, rows, 64)))
  for row, samples in enumerate(rows):
    start = 0
    for tokens, pixels in samples:
      wanted = torch_logits(model, config, tokens, pixels)
      assert wanted.std() > 0.3  # or the tolerance would say nothing
      found = logits[row, start : start + len(tokens)]
      np.testing.assert_allclose(found, wanted, atol=1e-5)
      start += len(tokens)


@pytest.mark.parametrize("name", CASES)
def test_transformers_agrees_on_what_we_write(tmp_path, name):
  base = tiny.make_base(tmp_path / "base", **CASES[name])
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "out", config, params, base)
  assert_agree(load_torch(tmp_path / "out"), config, params)


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
