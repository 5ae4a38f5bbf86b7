"""OpenGVLab's own form of InternVL, made from a model of transformers."""

import json

import jax
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import InputError
from tests.models import packed, tiny
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import assert_agree, load_torch

TOWER = "vision_tower.encoder.layer."
RENAMED = (
  ("multi_modal_projector.layer_norm", "mlp1.0"),
  ("multi_modal_projector.linear_1", "mlp1.1"),
  ("multi_modal_projector.linear_2", "mlp1.3"),
  ("vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
  ("position_embeddings", "position_embedding"),
  ("patch_embeddings.projection", "patch_embedding"),
  ("vision_tower.encoder.layer.", "vision_model.encoder.layers."),
  ("vision_tower.", "vision_model."),
  ("attention.projection_layer", "attn.proj"),
  ("attention.", "attn."),
  ("lambda_", "ls"),
  ("layernorm_before", "norm1"),
  ("layernorm_after", "norm2"),
)
VISION = {
  "attention_bias": "qkv_bias",
  "use_qk_norm": "qk_normalization",
  **{
    key: key
    for key in (
      "hidden_size",
      "num_hidden_layers",
      "num_attention_heads",
      "intermediate_size",
      "hidden_act",
      "layer_norm_eps",
      "norm_type",
    )
  },
}


def save_own_form(base, folder):
  """Writes a model of transformers' form as OpenGVLab would have published it."""
  bases.copy(base, folder)
  tensors = load_file(base / "model.safetensors")
  for layer in range(2):
    for kind in ("weight", "bias"):
      names = [f"{TOWER}{layer}.attention.{part}_proj.{kind}" for part in "qkv"]
      if names[0] in tensors:
        whole = np.concatenate([tensors.pop(name) for name in names])
        tensors[f"{TOWER}{layer}.attention.qkv.{kind}"] = whole
  own = {}
  for name, tensor in tensors.items():
    if not name.startswith("language_model."):
      for old, new in RENAMED:
        name = name.replace(old, new)
    own[name] = tensor
  save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
  config = json.loads((base / "config.json").read_text())
  vision = config["vision_config"]
  described = {
    "model_type": "internvl_chat",
    "architectures": ["InternVLChatModel"],
    "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
    "llm_config": config["text_config"],
    "vision_config": {
      "model_type": "intern_vit_6b",
      "image_size": vision["image_size"][0],
      "patch_size": vision["patch_size"][0],
      **{new: vision[old] for old, new in VISION.items()},
    },
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": vision["image_size"][0],
    "max_dynamic_patch": 12,
    "min_dynamic_patch": 1,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "internvl2_5",
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "use_thumbnail": True,
  }
  (folder / "config.json").write_text(json.dumps(described))
  (folder / "processor_config.json").unlink()
  processor = {
    "crop_size": 32,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "size": 32,
  }
  (folder / "preprocessor_config.json").write_text(json.dumps(processor))
  return folder


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def forms(request, tmp_path_factory):
  """A model in transformers' form and in OpenGVLab's, and its parameters."""
  folder = tmp_path_factory.mktemp("chat")
  large = request.param == "llama"
  base = tiny.make_base(
    folder / "base",
    family="internvl",
    decoder=request.param,
    vision_attention_bias=not large,
    vision_use_qk_norm=large,
    vision_norm_type="rms_norm" if large else "layer_norm",
  )
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder / "hf", config, params, base)
  return folder / "hf", save_own_form(folder / "hf", folder / "own"), params


def test_the_own_form_is_read_bit_for_bit(forms):
  hf, own, params = forms
  config = huggingface.read_config(own)
  # The own form's code takes ImageNet's statistics whatever the files say.
  assert config.image_mean == (0.485, 0.456, 0.406)
  wanted = huggingface.read_config(hf)
  assert config == packed.dataclasses.replace(
    wanted, image_mean=config.image_mean, image_std=config.image_std
  )
  found = huggingface.read_params(own, config)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_its_export_is_of_the_form_of_transformers(forms, tmp_path):
  _, own, params = forms
  config = huggingface.read_config(own)
  huggingface.write_model(tmp_path, config, params, own)
  assert_agree(load_torch(tmp_path), config, params)
  _, options = huggingface.read_processor(tmp_path)
  assert options == huggingface.read_processor(own)[1]
  assert (options.form, options.max_tiles, options.grid) == ("internvl", 12, 2)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"ps_version": "v1"}, "ps_version is 'v1', only 'v2'"),
    ({"use_llm_lora": 16}, "use_llm_lora is 16, only 0"),
    ({"llm_config": {"model_type": "internlm2"}}, "wqkv"),
    ({"llm_config": {"model_type": "phi3"}}, "'phi3', only qwen2, llama, qwen3"),
    ({"force_image_size": 64}, "force_image_size is 64, but"),
    ({"downsample_ratio": 0.4}, "downsample_ratio"),
  ],
)
def test_what_cannot_be_run_is_named(forms, tmp_path, change, message):
  folder = bases.copy(forms[1], tmp_path / "x")
  bases.edit_json(folder / "config.json", lambda config: config.update(change))
  with pytest.raises(InputError, match=message):
    huggingface.read_config(folder)


def test_a_tensor_that_is_not_three_in_one_is_named(forms, tmp_path):
  folder = bases.copy(forms[1], tmp_path / "x")

  def cut(tensors):
    name = "vision_model.encoder.layers.0.attn.qkv.weight"
    tensors[name] = tensors[name][:-1].copy()

  bases.edit_tensors(folder, cut)
  with pytest.raises(
    InputError, match=r"qkv\.weight, shape .* wanted \d+ \+ \d+ \+ \d+ rows"
  ):
    huggingface.check_weights(folder, huggingface.read_config(folder))


def test_its_export_names_the_tokens_that_the_processor_asks_for(forms, tmp_path):
  own = bases.copy(forms[1], tmp_path / "own")
  special = (*tiny.SPECIAL[:4], "<IMG_CONTEXT>", "<img>", "</img>")
  made = tiny.make_tokenizer(320, special)
  made.save_pretrained(own)
  config = huggingface.read_config(own)
  source = own
  for name in ("first", "second"):
    out = tmp_path / name
    huggingface.write_model(out, config, forms[2], source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.context_image_token_id == config.image_token
    for key, token in (("start", "<img>"), ("end", "</img>")):
      found = getattr(tokenizer, f"{key}_image_token_id")
      assert found == made.convert_tokens_to_ids(token)
    # transformers adds it, beyond the embeddings if need be; no model reads it.
    assert tokenizer.video_token_id == len(made)
    assert huggingface.read_processor(out)[0].get_vocab() == tokenizer.get_vocab()
    settings = json.loads((out / "processor_config.json").read_text())
    assert settings == {
      "processor_class": "InternVLProcessor",
      "image_seq_length": config.patches,
    }
    source = out
  names = [path.name for path in (tmp_path / "first").iterdir()]
  for name in names:
    first, second = ((tmp_path / step / name) for step in ("first", "second"))
    assert first.read_bytes() == second.read_bytes(), name


def test_a_token_outside_the_vocabulary_is_that_of_videos_alone(forms, tmp_path):
  folder = bases.copy(forms[0], tmp_path / "x")
  tokenizer = tiny.make_tokenizer(320, (*tiny.SPECIAL[:4], "<IMG_CONTEXT>"))
  tokenizer.add_tokens([f"<extra {n}>" for n in range(320 - len(tokenizer))])
  tokenizer.add_tokens(["<video>"], special_tokens=True)
  tokenizer.save_pretrained(folder)
  bases.edit_json(
    folder / "tokenizer_config.json", lambda value: value.pop("extra_special_tokens")
  )
  assert len(huggingface.read_processor(folder)[0]) == 321
  tokenizer.add_tokens(["<another>"])
  tokenizer.save_pretrained(folder)
  with pytest.raises(InputError, match="322 tokens, but"):
    huggingface.read_processor(folder)
