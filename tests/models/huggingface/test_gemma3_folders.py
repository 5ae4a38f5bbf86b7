"""Folders of Gemma 3: as transformers saves them, as published, exports, refusals."""

import json

import jax
import numpy as np
import pytest
import transformers

from mllm_selector_jax.configs import default
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models import huggingface, mllm
from mllm_selector_jax.models.huggingface import processor
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.pipeline.tuning_recipe import check_adapters
from mllm_selector_jax.types import InputError
from tests.data.test_image_forms import noise
from tests.models import packed, tiny
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import load_torch

CONFIG, IMAGES, PROCESSOR = (
  f"{name}.json" for name in ("config", "preprocessor_config", "processor_config")
)
# As published, for the side of the tiny models.
PUBLISHED_IMAGES = {
  "do_convert_rgb": None,
  "do_normalize": True,
  "do_pan_and_scan": None,
  "do_rescale": True,
  "do_resize": True,
  "image_mean": [0.5, 0.5, 0.5],
  "image_processor_type": "Gemma3ImageProcessor",
  "image_seq_length": 256,
  "image_std": [0.5, 0.5, 0.5],
  "pan_and_scan_max_num_crops": None,
  "pan_and_scan_min_crop_size": None,
  "pan_and_scan_min_ratio_to_activate": None,
  "processor_class": "Gemma3Processor",
  "resample": 2,
  "rescale_factor": 0.00392156862745098,
  "size": {"height": 32, "width": 32},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  folder = tmp_path_factory.mktemp("gemma3") / "base"
  return tiny.make_base(folder, family="gemma3", tie_word_embeddings=True)


def test_what_transformers_saves_is_read(base, tmp_path):
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "out", config, params, base)
  saved = bases.copy(base, tmp_path / "saved")
  load_torch(tmp_path / "out").save_pretrained(saved)
  assert "lm_head.weight" not in bases.read_tensors(saved)
  assert huggingface.read_config(saved) == config
  found = huggingface.read_params(saved, config)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_a_published_config_is_read_though_it_leaves_out_much(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")

  def strip(config):
    for key in ("tie_word_embeddings", "torch_dtype", "dtype"):
      config.pop(key, None)
    text = config["text_config"]
    for key in ("rope_parameters", "rope_theta", "layer_types", "tie_word_embeddings"):
      text.pop(key, None)
    text["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}
    text["num_hidden_layers"] = 7

  bases.edit_json(folder / CONFIG, strip)
  bases.edit_json(folder / IMAGES, lambda value: value.update(PUBLISHED_IMAGES))
  decoder = huggingface.read_config(folder).decoder
  assert decoder.tied and decoder.full_layers == (5,)
  assert (decoder.rope.kind, decoder.rope.factor) == ("linear", 8.0)
  assert decoder.rope.theta == 1e6 and decoder.window_rope.theta == 1e4
  _, options = huggingface.read_processor(folder)
  assert (options.form, options.resample, options.grid) == ("stretched", 2, 2)


def test_an_export_says_its_wavelengths_to_transformers_4(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")
  full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6}
  near = {"rope_type": "default", "rope_theta": 3e4}
  both = {"full_attention": full, "sliding_attention": near}

  def change(config):
    text = config["text_config"]
    for key in ("rope_theta", "rope_local_base_freq"):
      text.pop(key)
    text["rope_parameters"] = both

  bases.edit_json(folder / CONFIG, change)
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  huggingface.write_model(tmp_path / "out", config, params, folder)
  text = json.loads((tmp_path / "out" / CONFIG).read_text())["text_config"]
  assert (text["rope_theta"], text["rope_local_base_freq"]) == (2e6, 3e4)
  assert text["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
  assert text["rope_parameters"] == both
  assert huggingface.read_config(tmp_path / "out") == config


def test_an_export_s_processor_prepares_images_and_text_as_the_run(base, tmp_path):
  tokenizer, options = huggingface.read_processor(base)
  images = BaseImages(options, huggingface.read_image_tokens(base, tokenizer))
  config = huggingface.read_config(base)
  params = huggingface.read_params(base, config)
  out = tmp_path / "out"
  huggingface.write_model(out, config, params, base, images=images.limited)
  assert huggingface.read_processor(out)[1] == options
  fields = json.loads((out / PROCESSOR).read_text())
  assert fields.pop("processor_class") == "Gemma3Processor"
  theirs = transformers.Gemma3Processor(
    transformers.AutoImageProcessor.from_pretrained(out, backend="pil"),
    transformers.AutoTokenizer.from_pretrained(out),
    **fields,
  )
  for size in [(64, 90), (200, 40), (32, 32), (1, 3)]:
    image = noise(*size)
    found = theirs(text=["<start_of_image>"], images=[image], add_special_tokens=False)
    ids = list(found["input_ids"][0])
    tokens = images.lay_out(*size).tokens.tolist()
    lines = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    assert ids == [*lines, *tokens, *lines]
    (tile,) = images.cut_tiles(image)
    pixels = np.asarray(found["pixel_values"][0]).transpose(1, 2, 0)
    np.testing.assert_allclose(pixels, tile / 255 * 2 - 1, atol=1e-6)


def set_part(part, **values):
  return lambda config: config[part].update(values)


def set_whole(**values):
  return lambda value: value.update(values)


@pytest.mark.parametrize(
  ("file", "change", "message"),
  [
    (
      CONFIG,
      set_whole(mm_tokens_per_image=5),
      "per_image is 5, only the square of",
    ),
    (CONFIG, set_whole(mm_tokens_per_image=9), "a divisor of the 4 patches"),
    (CONFIG, set_part("vision_config", num_channels=1), "num_channels is 1"),
    (
      CONFIG,
      set_part("vision_config", model_type="clip_vision_model"),
      "vision_config.model_type is 'clip_vision_model', only 'siglip_vision_model'",
    ),
    (
      CONFIG,
      set_part("text_config", model_type="llama"),
      "text_config.model_type is 'llama', only 'gemma3_text'",
    ),
    (
      CONFIG,
      set_part("text_config", final_logit_softcapping=30.0),
      "final_logit_softcapping is 30.0",
    ),
    (IMAGES, set_whole(do_pan_and_scan=True), "do_pan_and_scan is on.*set it to false"),
    (IMAGES, set_whole(do_normalize=False), "do_normalize is off"),
    (IMAGES, set_whole(size={"height": 30, "width": 32}), "vision tower reads 32 x 32"),
    (
      IMAGES,
      set_whole(image_processor_type="CLIPImageProcessor", size={"shortest_edge": 32}),
      "is of CLIPImageProcessor, but .* takes Gemma3ImageProcessor",
    ),
    (PROCESSOR, set_whole(image_seq_length=256), "is 256, but a tile has 4 tokens"),
  ],
)
def test_what_cannot_be_followed_is_named(base, tmp_path, file, change, message):
  folder = bases.copy(base, tmp_path / "base")
  bases.edit_json(folder / file, change)
  with pytest.raises(InputError, match=message):
    huggingface.read_config(folder)


def test_a_mark_that_the_tokenizer_lacks_is_named(base):
  with pytest.raises(InputError, match="no token <start_of_image>, which stands besid"):
    huggingface.read_image_tokens(base, tiny.make_tokenizer())


def test_an_adapter_of_the_projector_is_refused():
  config = packed.make_config(
    pools=True, merge=2, select="full", vision_class_token=False
  )
  adapter = LoraConfig(2, 4.0, ("decoder", "projector"))
  with pytest.raises(InputError, match=r"lora.modules names projector.*Leave it out"):
    mllm.add_adapter(config, mllm.init(config, 0), adapter, 0)
  # A run says so at its start.
  cfg = default.get_config()
  check_adapters(config, cfg)
  cfg.tune.lora.rank, cfg.tune.lora.modules = 4, "decoder,tower"
  check_adapters(config, cfg)
  cfg.tune.lora.modules = "all"
  with pytest.raises(InputError, match=r"^tune: lora.modules names projector"):
    check_adapters(config, cfg)


def test_what_is_written_is_read_back(base):
  _, options = huggingface.read_processor(base)
  described = processor.describe_image_options(options)
  config = transformers.AutoConfig.from_pretrained(base)
  again = processor.read_image_options(base, config, described=described)
  assert again == options
