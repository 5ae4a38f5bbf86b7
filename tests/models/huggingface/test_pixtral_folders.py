"""Folders of Pixtral and Mistral 3: as transformers saves them, exports, refusals."""

import json
import re

import jax
import numpy as np
import pytest
import safetensors.torch
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import InputError
from tests.data.test_image_forms import noise
from tests.models import packed, tiny
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import load_torch
from tests.pixtral_files import PixtralProcessor

FAMILIES = {"pixtral": "mistral", "mistral3": "ministral3"}
SIZES = [(64, 90), (200, 40), (130, 130), (20, 25)]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param) / "base"
  decoder = FAMILIES[request.param]
  return tiny.make_base(folder, family=request.param, decoder=decoder, head_dim=8)


def export(base, folder, **fields):
  """A base's export with parameters none of which is at a special value."""
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder, config, params, base, **fields)
  return config, params


def test_what_transformers_saves_is_read(base, tmp_path):
  config, params = export(base, tmp_path / "out")
  saved = bases.copy(base, tmp_path / "saved")
  load_torch(tmp_path / "out").save_pretrained(saved)
  assert huggingface.read_config(saved) == config
  found = huggingface.read_params(saved, config)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_the_names_that_transformers_5_has_in_memory_are_read(base, tmp_path):
  config, params = export(base, tmp_path / "out")
  state = load_torch(tmp_path / "out").state_dict()
  assert "model.vision_tower.patch_conv.weight" in state
  tensors = {name: tensor.contiguous() for name, tensor in state.items()}
  safetensors.torch.save_file(tensors, tmp_path / "out/model.safetensors")
  found = huggingface.read_params(tmp_path / "out", config)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_an_export_has_the_published_names(base, tmp_path):
  config, _ = export(base, tmp_path / "out")
  names = set(bases.read_tensors(tmp_path / "out"))
  tower = "vision_tower.transformer.layers.0."
  wanted = {
    "language_model.model.embed_tokens.weight",
    "language_model.lm_head.weight",
    "language_model.model.layers.0.self_attn.q_proj.weight",
    "vision_tower.patch_conv.weight",
    "vision_tower.ln_pre.weight",
    *(f"{tower}attention.{part}_proj.weight" for part in "qkvo"),
    *(f"{tower}feed_forward.{part}_proj.weight" for part in ("gate", "up", "down")),
    *(f"{tower}{part}_norm.weight" for part in ("attention", "ffn")),
    "multi_modal_projector.linear_1.weight",
    "multi_modal_projector.linear_2.weight",
  }
  if config.narrows:
    wanted |= {
      "multi_modal_projector.norm.weight",
      "multi_modal_projector.patch_merger.merging_layer.weight",
    }
  else:
    wanted |= {"multi_modal_projector.linear_1.bias"}
  assert wanted <= names
  assert ("multi_modal_projector.linear_1.bias" in names) == (not config.narrows)
  described = json.loads((tmp_path / "out/config.json").read_text())
  assert described["vision_config"]["rope_theta"] == 10000.0


def test_an_export_s_processor_makes_as_many_tokens_as_the_run(base, tmp_path):
  tokenizer, options = huggingface.read_processor(base)
  tokens = huggingface.read_image_tokens(base, tokenizer)
  free = BaseImages(options, tokens)
  limited = BaseImages(options, tokens, resize_pixels=40**2)
  export(base, tmp_path / "out", images=limited.limited)
  again = huggingface.read_processor(tmp_path / "out")[1]
  assert again == limited.limited != options
  fields = json.loads((tmp_path / "out/processor_config.json").read_text())
  assert fields.pop("processor_class") == "PixtralProcessor"
  images = transformers.AutoImageProcessor.from_pretrained(
    tmp_path / "out", backend="pil"
  )
  theirs = PixtralProcessor(
    images, transformers.AutoTokenizer.from_pretrained(tmp_path / "out"), **fields
  )
  saved = 0
  for size in SIZES:
    found = theirs(text=["[IMG]"], images=[noise(*size)], add_special_tokens=False)
    layout = limited.lay_out(*size)
    assert found["input_ids"][0].tolist() == layout.tokens.tolist()
    saved += free.lay_out(*size).tiles - layout.tiles
  assert saved > 0


def test_image_tokens_are_the_families(base):
  tokenizer, _ = huggingface.read_processor(base)
  tokens = huggingface.read_image_tokens(base, tokenizer)
  names = [tokenizer.convert_ids_to_tokens(ids) for ids in (tokens.between, tokens.end)]
  assert names == [["[IMG_BREAK]"], ["[IMG_END]"]]
  assert tokens.begin == () and tokens.written == (4,)


def set_vision(**values):
  return lambda config: config["vision_config"].update(values)


def set_whole(**values):
  return lambda config: config.update(values)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (set_whole(vision_feature_layer=-2), "vision_feature_layer is -2, only -1 can"),
    (set_whole(vision_feature_layer=[-1, 1]), r"vision_feature_layer is \[-1, 1\]"),
    (
      set_vision(rope_theta=100.0, rope_parameters=None),
      "rope_theta can only be",
    ),
    (set_vision(num_channels=1), "num_channels is 1"),
    (set_vision(num_attention_heads=16), "head width of 2 is not a multiple of 4"),
  ],
)
def test_what_cannot_be_run_is_named(base, tmp_path, change, message):
  folder = bases.copy(base, tmp_path / "base")
  bases.edit_json(folder / "config.json", change)
  with pytest.raises(InputError, match=message):
    huggingface.read_config(folder)


def test_what_one_of_them_cannot_run_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")
  one = huggingface.read_config(base).narrows
  name, value = ("spatial_merge_size", 3)
  if not one:
    name, value = ("vision_feature_select_strategy", "default")
  bases.edit_json(folder / "config.json", set_whole(**{name: value}))
  with pytest.raises(InputError, match=rf"{name} is {value!r}, only"):
    huggingface.read_config(folder)


def test_other_towers_of_mistral3_are_refused(tmp_path):
  base = tiny.make_base(tmp_path / "base", family="mistral3", decoder="mistral")
  clip = transformers.CLIPVisionConfig(hidden_size=32, num_attention_heads=2)
  bases.edit_json(base / "config.json", set_whole(vision_config=clip.to_dict()))
  with pytest.raises(InputError, match="'clip_vision_model', only 'pixtral' can"):
    huggingface.read_config(base)


@pytest.mark.parametrize("tied", [True, False])
def test_tying_follows_the_text_model_where_the_whole_is_silent(tmp_path, tied):
  """As Mistral Small 3.1 is published; transformers 5 would fill in True."""
  base = tiny.make_base(
    tmp_path / "base", family="mistral3", decoder="mistral", tie_word_embeddings=tied
  )
  path = base / "config.json"
  bases.edit_json(path, lambda config: config.pop("tie_word_embeddings"))
  config = huggingface.read_config(base)
  assert config.decoder.tied == tied
  huggingface.read_params(base, config)


def test_a_mark_that_the_tokenizer_lacks_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")
  special = (*tiny.SPECIAL[:4], "[IMG]", "[IMG_END]")
  tiny.make_tokenizer(300, special).save_pretrained(folder)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  wanted = re.escape("no token [IMG_BREAK], which stands beside or inside an image")
  with pytest.raises(InputError, match=wanted):
    huggingface.read_image_tokens(folder, tokenizer)
