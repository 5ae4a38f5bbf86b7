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
from tests import gemma4_files
from tests.data.test_image_forms import noise
from tests.models import packed
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import load_torch
from tests.stages import family_bases

CONFIG, IMAGES, PROCESSOR = (
  f"{name}.json" for name in ("config", "preprocessor_config", "processor_config")
)


BOTH = pytest.mark.parametrize("base", ["gemma4", "gemma4e"], indirect=True)
ONLY_E = pytest.mark.parametrize("base", ["gemma4e"], indirect=True)


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
  family = getattr(request, "param", "gemma4")
  folder = tmp_path_factory.mktemp(family) / "base"
  return family_bases.make_base(folder, family, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def out(base, tmp_path_factory):
  """An export of the base with drawn parameters."""
  folder = tmp_path_factory.mktemp("gemma4") / "out"
  config = huggingface.read_config(base)
  huggingface.write_model(folder, config, packed.random_params(config), base)
  return folder


@BOTH
def test_what_transformers_saves_is_read(base, out, tmp_path):
  saved = bases.copy(base, tmp_path / "saved")
  load_torch(out).save_pretrained(saved)
  assert "per_layer_config" in (saved / CONFIG).read_text()
  assert bases.read_tensors(saved).keys() - {"lm_head.weight"} == (
    bases.read_tensors(out).keys()
  )
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


def find_audio(folder):
  """The tensors of the part for audio, as bytes."""
  parts = ("model.audio_tower.", "model.embed_audio.")
  tensors = bases.read_tensors(folder).items()
  return {
    name: (array.dtype, array.shape, array.tobytes())
    for name, array in tensors
    if name.startswith(parts)
  }


@ONLY_E
def test_the_part_for_audio_is_told_and_carried_bit_for_bit(base, out, tmp_path):
  carried = find_audio(base)
  assert len(carried) > 30 and find_audio(out) == carried
  (told,) = huggingface.list_remarks(base)
  total = sum(len(content) // 2 for _, _, content in carried.values())
  assert told == (
    f"its part for audio is not run; exports have its {len(carried)} tensors"
    f" ({total:,} numbers) unchanged."
  )
  value = json.loads((out / CONFIG).read_text())["audio_config"]
  assert value["hidden_size"] == 8 and value["dtype"] == "float32"
  # In several files, and without the name of the whole before them, too.
  other = bases.copy(base, tmp_path / "base")
  bases.edit_tensors(
    other,
    lambda tensors: tensors.update(
      {name.removeprefix("model."): tensors.pop(name) for name in list(carried)}
    ),
  )
  bases.shard(other, 3)
  config = huggingface.read_config(other)
  params = huggingface.read_params(other, config)
  huggingface.write_model(tmp_path / "out", config, params, other)
  assert find_audio(tmp_path / "out") == carried


@ONLY_E
def test_a_base_that_lacks_its_part_for_audio_is_told(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")
  bases.edit_tensors(
    folder, lambda tensors: [tensors.pop(name) for name in find_audio(base)]
  )
  huggingface.read_params(folder, huggingface.read_config(folder))
  (told,) = huggingface.list_remarks(folder)
  assert told == "its weights have no part for audio, and exports have none either."


def test_a_part_for_audio_that_no_config_names_is_refused(base, tmp_path):
  folder = gemma4_files.add_audio(bases.copy(base, tmp_path / "base"))
  bases.edit_json(folder / CONFIG, lambda value: value.update(audio_config=None))
  with pytest.raises(InputError, match=r"unexpected: model\.audio_tower\."):
    huggingface.read_params(folder, huggingface.read_config(folder))


@ONLY_E
def test_keys_of_layers_that_read_others_are_passed_over(base, tmp_path):
  # As published files have them; the tower has layers of the same numbers.
  folder, spare = bases.copy(base, tmp_path / "base"), np.ones((2, 2), np.float32)
  stem = "model.language_model.layers.{}.self_attn.k_proj.weight"
  bases.edit_tensors(folder, lambda tensors: tensors.update({stem.format(2): spare}))
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  huggingface.write_model(tmp_path / "out", config, params, folder)
  assert stem.format(2) not in bases.read_tensors(tmp_path / "out")
  bases.edit_tensors(
    folder, lambda tensors: tensors.pop(stem.format(1)) is tensors.pop(stem.format(2))
  )
  with pytest.raises(InputError, match=r"missing: .*layers\.1\.self_attn\.k_proj"):
    huggingface.read_params(folder, config)


@ONLY_E
@pytest.mark.parametrize(("value", "fine"), [(np.inf, True), (np.nan, False)])
def test_bounds_may_be_infinite(base, tmp_path, value, fine):
  folder = bases.copy(base, tmp_path / "base")
  name = "model.vision_tower.encoder.layers.0.mlp.up_proj.input_max"
  bases.edit_tensors(
    folder,
    lambda tensors: tensors.update({name: np.array(value, tensors[name].dtype)}),
  )
  config = huggingface.read_config(folder)
  if not fine:
    with pytest.raises(InputError, match=r"up_proj\.input_max has 1 of 1 values that"):
      huggingface.read_params(folder, config)
    return
  params = huggingface.read_params(folder, config)
  found = params["vision"]["layers"]["up_bounds"]["input_max"]
  np.testing.assert_array_equal(found, [np.inf, np.inf])


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
      set_part("text_config", hidden_size_per_layer_input=8, pad_token_id=None),
      "pad_token_id is null; the layers' own embeddings need the token that",
    ),
    (
      CONFIG,
      set_part(
        "text_config", hidden_size_per_layer_input=8, vocab_size_per_layer_input=300
      ),
      "embeddings by layer of 300 tokens .* as many tokens as the vocabulary has, 320",
    ),
    (
      CONFIG,
      set_part("text_config", hidden_size_per_layer_input=10**9),
      "hidden_size_per_layer_input 1,000,000,000 in config.json; at most 16,777,216",
    ),
    (
      CONFIG,
      set_part("text_config", num_kv_shared_layers=-1),
      "num_kv_shared_layers -1 in config.json, where a number from 0 belongs",
    ),
    (
      CONFIG,
      set_part("text_config", num_kv_shared_layers=2),
      r"the last 2 of 3 layers read keys and values .* of their kind \(full\)",
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
    (CONFIG, set_part("vision_config", num_key_value_heads=1), "num_key_value_heads"),
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
