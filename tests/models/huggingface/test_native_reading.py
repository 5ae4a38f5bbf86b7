"""Forms of Qwen-VL's folders that people have, and what of them is refused."""

import re

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import InputError
from tests.models import packed, tiny, tiny_qwen
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import load_torch

FAMILIES = tuple(tiny_qwen.FAMILIES)


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp("base")
  return tiny.make_base(folder / request.param, family=request.param)


def copy_processor(base, folder):
  for path in base.glob("*.json"):
    if "config.json" != path.name and "index" not in path.name:
      (folder / path.name).write_bytes(path.read_bytes())


def assert_same(folder, base):
  config = huggingface.read_config(base)
  assert huggingface.read_config(folder) == config
  found = huggingface.read_params(folder, config)
  wanted = huggingface.read_params(base, config)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_what_transformers_saves_is_read(base, tmp_path):
  model = load_torch(base)
  model.save_pretrained(tmp_path, max_shard_size="40KB")
  assert list(tmp_path.glob("model-*.safetensors"))
  copy_processor(base, tmp_path)
  assert_same(tmp_path, base)


def test_the_layer_that_guesses_further_tokens_is_passed_over(tmp_path):
  base = tiny.make_base(tmp_path / "base", family="qwen3_5")
  folder = bases.copy(base, tmp_path / "x")
  extra = {f"mtp.{name}": np.ones((2, 2), np.float32) for name in ("fc", "layers.0.q")}
  tensors = bases.read_tensors(base) | extra
  safetensors.numpy.save_file(tensors, folder / "model.safetensors")
  assert_same(folder, base)
  # As in transformers.
  load_torch(folder)


def test_a_layer_of_a_third_kind_is_refused(tmp_path):
  base = tiny.make_base(tmp_path / "base", family="qwen3_5")
  for kinds, words in (["lll", "no full_attention"], ["lsf", "sliding_attention"]):

    def change(config, kinds=kinds):
      names = tiny_qwen.name_layers(kinds.replace("s", "l"))
      if "s" in kinds:
        names[1] = "sliding_attention"
      config["text_config"] |= {"layer_types": names, "num_hidden_layers": 3}

    bases.edit_json(base / "config.json", change)
    with pytest.raises(InputError, match=f"text_config.layer_types has {words}"):
      huggingface.read_config(base)


def test_names_of_fine_tuned_models_are_read(base, tmp_path):
  """As libraries write that save the names that modules have in memory."""
  folder = bases.copy(base, tmp_path / "x")
  tensors = {}
  for name, array in bases.read_tensors(base).items():
    name = re.sub(r"^visual\.", "model.visual.", name)
    name = re.sub(r"^model\.(?!visual|language)", "model.language_model.", name)
    tensors[name] = array
  assert not any(name.startswith(("visual", "model.layers")) for name in tensors)
  safetensors.numpy.save_file(tensors, folder / "model.safetensors")
  assert_same(folder, base)


def test_a_head_that_is_saved_though_tied_must_be_the_embedding(tmp_path):
  base = tiny.make_base(tmp_path / "x", family="qwen3_vl", tie_word_embeddings=True)
  config = huggingface.read_config(base)
  tensors = bases.read_tensors(base)
  table = tensors["model.language_model.embed_tokens.weight"]
  tensors["lm_head.weight"] = table.copy()
  safetensors.numpy.save_file(tensors, base / "model.safetensors")
  huggingface.read_params(base, config)
  tensors["lm_head.weight"] = table + 1
  safetensors.numpy.save_file(tensors, base / "model.safetensors")
  with pytest.raises(InputError, match="contradicts the embeddings"):
    huggingface.read_params(base, config)


def test_the_text_part_s_word_on_tied_heads_counts_where_the_whole_has_none(tmp_path):
  base = tiny.make_base(tmp_path / "x", family="qwen3_vl", tie_word_embeddings=True)

  def change(config):
    del config["tie_word_embeddings"]
    config["text_config"]["tie_word_embeddings"] = True

  bases.edit_json(base / "config.json", change)
  assert huggingface.read_config(base).decoder.tied


def test_both_frames_of_a_patch_s_kernel_come_back(base, tmp_path):
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path, config, params, base)
  stored = bases.read_tensors(tmp_path)
  (name,) = (name for name in stored if name.endswith("patch_embed.proj.weight"))
  # [width, channel, frame, row, column]
  kernel = np.asarray(params["vision"]["patch_embedding"]["kernel"])
  kernel = kernel.reshape(2, 4, 4, 3, 16).transpose(4, 3, 0, 1, 2)
  np.testing.assert_array_equal(stored[name], kernel)
  assert (stored[name][:, :, 0] != stored[name][:, :, 1]).any()


def test_fused_weights_of_another_width_are_misshapen(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  tensors = bases.read_tensors(base)
  (name, *_) = (name for name in tensors if name.endswith("attn.qkv.weight"))
  tensors[name] = tensors[name][:-1]
  safetensors.numpy.save_file(tensors, folder / "model.safetensors")
  config = huggingface.read_config(base)
  with pytest.raises(
    InputError, match=re.escape(name) + r".* wanted \d+ \+ \d+ \+ \d+ rows"
  ):
    huggingface.read_params(folder, config)


@pytest.mark.parametrize(
  ("family", "changes", "words"),
  [
    (
      "qwen2_5_vl",
      {"layer_types": ["full_attention"] * 2 + ["chunked_attention"]},
      "text_config.layer_types has chunked_attention, only 'full_attention' and",
    ),
    (
      "qwen2_vl",
      {"vision_config": {"hidden_size": 24}},
      "gives features of 24 channels, but the decoder has 32",
    ),
    (
      "qwen3_vl",
      {"vision_config": {"deepstack_visual_indexes": [1, 0]}},
      "deepstack_visual_indexes is [1, 0], only increasing numbers",
    ),
    (
      "qwen3_vl",
      {"vision_config": {"deepstack_visual_indexes": [0, 7]}},
      "deepstack_visual_indexes names 2 layers, the last of them 7",
    ),
    (
      "qwen3_vl",
      {"vision_config": {"num_position_embeddings": 24}},
      "num_position_embeddings is 24, only a square can be run",
    ),
    (
      "qwen3_vl_moe",
      {"text_config": {"mlp_only_layers": [0], "decoder_sparse_step": 2}},
      "text_config.mlp_only_layers is [0], only [] can be run; text_config.decoder_",
    ),
    (
      "qwen3_vl_moe",
      {"text_config": {"moe_intermediate_size": 16}},
      "moe_intermediate_size is 16, half of hidden_size",
    ),
    (
      "qwen2_vl",
      {"vision_config": {"num_heads": 8}},
      "a head width of 2 is not a multiple of 4",
    ),
    (
      "qwen2_vl",
      {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]}},
      "mrope_section [1, 1, 1] must add up to 4",
    ),
  ],
)
def test_what_cannot_be_run_is_refused_by_name(tmp_path, family, changes, words):
  base = tiny.make_base(tmp_path / "x", family=family)

  def change(config):
    for key, value in changes.items():
      if key in ("text_config", "vision_config"):
        config[key].update(value)
      else:
        config[key] = value

  bases.edit_json(base / "config.json", change)
  with pytest.raises(InputError, match=re.escape(words)):
    huggingface.read_config(base)


def test_a_rope_that_stretches_the_context_goes_out_and_in(tmp_path):
  stretched = {
    **tiny_qwen.rope(1, 2, 1),
    "rope_type": "yarn",
    "factor": 2.0,
    "original_max_position_embeddings": 256,
  }
  base = tiny.make_base(tmp_path / "x", family="qwen2_5_vl", rope_parameters=stretched)
  config = huggingface.read_config(base)
  assert (config.decoder.rope.kind, config.decoder.rope.sections) == ("yarn", (1, 2, 1))
  model = load_torch(base)
  assert model.config.text_config.rope_parameters["rope_type"] == "yarn"
  torch.testing.assert_close(
    model.model.language_model.rotary_emb.inv_freq,
    torch.tensor(config.decoder.rope.frequencies(8), dtype=torch.float32),
  )
