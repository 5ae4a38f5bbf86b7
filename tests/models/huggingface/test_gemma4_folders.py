"""Folders of Gemma 4: as transformers saves them, exports, refusals."""

import json

import jax
import numpy as np
import pytest
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import processor
from mllm_selector_jax.types import InputError
from tests.data.test_image_forms import noise
from tests.models import packed
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import load_torch
from tests.stages import family_bases

CONFIG, IMAGES, PROCESSOR = (
  f"{name}.json" for name in ("config", "preprocessor_config", "processor_config")
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  folder = tmp_path_factory.mktemp("gemma4") / "base"
  return family_bases.make_base(folder, "gemma4", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def out(base, tmp_path_factory):
  """An export of the base with drawn parameters."""
  folder = tmp_path_factory.mktemp("gemma4") / "out"
  config = huggingface.read_config(base)
  huggingface.write_model(folder, config, packed.random_params(config), base)
  return folder


def test_what_transformers_saves_is_read(base, out, tmp_path):
  saved = bases.copy(base, tmp_path / "saved")
  load_torch(out).save_pretrained(saved)
  assert "per_layer_config" in (saved / CONFIG).read_text()
  config = huggingface.read_config(saved)
  assert config == huggingface.read_config(base)
  found, wanted = (huggingface.read_params(at, config) for at in (saved, out))
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_an_export_has_the_published_names(out):
  value = json.loads((out / CONFIG).read_text())
  text = value["text_config"]
  assert (text["global_head_dim"], text["num_global_key_value_heads"]) == (12, 1)
  assert "per_layer_config" not in text and "rope_theta" not in text
  names = set(bases.read_tensors(out))
  assert {
    "model.embed_vision.embedding_projection.weight",
    "model.vision_tower.std_scale",
    "model.vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight",
    "model.language_model.layers.0.layer_scalar",
    "model.language_model.layers.0.self_attn.v_proj.weight",
  } < names
  assert "model.language_model.layers.2.self_attn.v_proj.weight" not in names


def test_an_export_s_processor_prepares_images_and_text_as_the_run(base, out):
  tokenizer, options = huggingface.read_processor(base)
  images = BaseImages(options, huggingface.read_image_tokens(base, tokenizer))
  assert huggingface.read_processor(out)[1] == options
  theirs = family_bases.load_processor("gemma4", out)
  for size in [(64, 90), (200, 4), (1, 3)]:
    image = noise(*size)
    found = theirs(text=["<|image|>"], images=[image], add_special_tokens=False)
    tokens = images.lay_out(*size).tokens.tolist()
    assert list(found["input_ids"][0]) == tokens
    total = images.cut_tiles(image).sum() / 255
    np.testing.assert_allclose(found["pixel_values"].sum(), total, rtol=1e-4)


def test_the_processor_s_part_for_audio_is_carried_over(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")
  name = "Gemma4AudioFeatureExtractor"
  extractor = {"feature_extractor_type": name, "hop_length": 160}
  bases.edit_json(
    folder / PROCESSOR, lambda value: value.update(feature_extractor=extractor)
  )
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  huggingface.write_model(tmp_path / "out", config, params, folder)
  written = json.loads((tmp_path / "out" / PROCESSOR).read_text())
  assert written["feature_extractor"] == extractor


def set_part(part, **values):
  return lambda config: config[part].update(values)


def set_whole(**values):
  return lambda value: value.update(values)


@pytest.mark.parametrize(
  ("file", "change", "message"),
  [
    (
      CONFIG,
      set_part("text_config", enable_moe_block=True, num_experts=4, top_k_experts=2),
      r"enable_moe_block is True: each token passes a few of many .*\(26B-A4B\)",
    ),
    (
      CONFIG,
      set_part("text_config", hidden_size_per_layer_input=8),
      r"hidden_size_per_layer_input is 8: layers have embeddings of their own",
    ),
    (
      CONFIG,
      set_part("text_config", num_kv_shared_layers=1),
      r"num_kv_shared_layers is 1: the last layers read the keys and values of earl",
    ),
    (
      CONFIG,
      set_part("text_config", use_bidirectional_attention="all"),
      "use_bidirectional_attention is 'all', only 'vision' and null",
    ),
    (
      CONFIG,
      set_part("text_config", layer_types=["full_attention"] * 3),
      "layer_types has only full_attention; layers of both",
    ),
    (
      CONFIG,
      set_part("vision_config", use_clipped_linears=True),
      "use_clipped_linears is True: linear layers clip",
    ),
    (CONFIG, set_part("vision_config", num_key_value_heads=1), "num_key_value_heads"),
    (CONFIG, set_whole(audio_config={}), "audio_config is not null: the model also"),
    (
      CONFIG,
      set_part("vision_config", position_embedding_size=200),
      "a side may have 210 patches, but the tower has positions for 200",
    ),
    (IMAGES, set_whole(do_normalize=True), "do_normalize is on"),
    (IMAGES, set_whole(patch_size=4), "patch_size is 4, but vision_config.patch_size"),
    (
      IMAGES,
      set_whole(image_processor_type="CLIPImageProcessor", size={"shortest_edge": 32}),
      "is of CLIPImageProcessor, but .* takes Gemma4ImageProcessor",
    ),
  ],
)
def test_what_cannot_be_followed_is_named(base, tmp_path, file, change, message):
  folder = bases.copy(base, tmp_path / "base")
  bases.edit_json(folder / file, change)
  with pytest.raises(InputError, match=message):
    huggingface.read_config(folder)


def test_what_is_written_is_read_back(base):
  _, options = huggingface.read_processor(base)
  described = processor.describe_image_options(options)
  config = transformers.AutoConfig.from_pretrained(base)
  again = processor.read_image_options(base, config, described=described)
  assert again == options
