import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import transformers

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import processor
from mllm_selector_jax.types import InputError
from tests.models import tiny
from tests.models.huggingface import bases

# How a CLIPImageProcessor is published.
CLIP = {
  "image_processor_type": "CLIPImageProcessor",
  "crop_size": {"height": 32, "width": 32},
  "size": {"shortest_edge": 32},
  "do_center_crop": True,
  "do_convert_rgb": True,
  "do_normalize": True,
  "do_rescale": True,
  "do_resize": True,
  "image_mean": [0.4, 0.5, 0.6],
  "image_std": [0.2, 0.3, 0.4],
  "resample": 3,
  "rescale_factor": 0.00392156862745098,
}


def test_the_padding_processor_is_followed(base):
  tokenizer, options = huggingface.read_processor(base)
  assert tokenizer("<image>")["input_ids"] == [1, 4]
  assert (options.size, options.pad, options.resample) == (32, True, 3)
  assert options.background == (122, 116, 104)
  assert options.mean == (0.48145466, 0.4578275, 0.40821073)


@pytest.mark.parametrize("crop", [32, {"height": 32, "width": 32}])
def test_a_cropping_processor_is_followed(base, tmp_path, crop):
  folder = bases.copy(base, tmp_path / "x")
  value = {**CLIP, "crop_size": crop}
  (folder / "preprocessor_config.json").write_text(json.dumps(value))
  options = huggingface.read_processor(folder)[1]
  assert (options.size, options.pad) == (32, False)
  assert (options.mean, options.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
  config = huggingface.read_config(folder)
  assert (config.image_mean, config.image_std) == (options.mean, options.std)


def test_the_nested_form_of_transformers_5_is_read(base, tmp_path):
  tokenizer = transformers.AutoTokenizer.from_pretrained(base)
  folder = bases.copy(base, tmp_path / "x")
  for name in ("preprocessor_config.json", "processor_config.json"):
    (folder / name).unlink()
  transformers.LlavaProcessor(tiny.make_image_processor(), tokenizer).save_pretrained(
    folder
  )
  assert not (folder / "preprocessor_config.json").exists()
  assert huggingface.read_processor(folder)[1] == huggingface.read_processor(base)[1]


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"do_resize": False}, "do_resize is off"),
    ({"do_normalize": False}, "do_normalize is off"),
    ({"rescale_factor": 1 / 127.5}, "not 1/255"),
    ({"do_center_crop": False}, "images stay oblong"),
    ({"size": {"height": 32, "width": 32}}, "distorts"),
    ({"size": {"height": 32, "width": 48}}, "neither a shortest edge nor a square"),
    ({"size": {"shortest_edge": 40}}, "must agree"),
    (
      {"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}},
      "vision tower reads 32",
    ),
    ({"image_mean": [0.5]}, "not of three channels"),
    ({"image_processor_type": "NoSuchProcessor"}, "cannot be read"),
  ],
)
def test_what_cannot_be_done_is_named(base, tmp_path, changes, message):
  folder = bases.copy(base, tmp_path / "x")
  (folder / "preprocessor_config.json").write_text(json.dumps({**CLIP, **changes}))
  with pytest.raises(InputError, match=message):
    huggingface.read_processor(folder)


def test_a_missing_processor_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  for name in ("preprocessor_config.json", "processor_config.json"):
    (folder / name).unlink()
  with pytest.raises(InputError, match=r"has no preprocessor_config\.json"):
    huggingface.read_config(folder)


def test_an_image_token_that_the_tokenizer_lacks_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  text = (folder / "tokenizer.json").read_text().replace("<image>", "<picture>")
  (folder / "tokenizer.json").write_text(text)
  bases.edit_json(
    folder / "tokenizer_config.json", lambda x: x.pop("additional_special_tokens", 0)
  )
  bases.edit_json(
    folder / "tokenizer_config.json", lambda x: x.pop("extra_special_tokens", 0)
  )
  with pytest.raises(InputError, match="has no such token") as error:
    huggingface.read_processor(folder)
  assert "<image>" in str(error.value) and "add_tokens" in str(error.value)


def test_another_id_of_the_image_token_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  bases.edit_json(folder / "config.json", lambda x: x.update(image_token_index=7))
  with pytest.raises(InputError, match="gives it the id 4"):
    huggingface.read_processor(folder)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_broken_tokenizer_is_named(base, tmp_path, content):
  folder = bases.copy(base, tmp_path / "x")
  if content is None:
    (folder / "tokenizer.json").unlink()
  else:
    (folder / "tokenizer.json").write_text(content)
  with pytest.raises(InputError, match="tokenizer"):
    huggingface.read_processor(folder)


def test_no_torch_is_needed(base):
  code = f"""
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None
from mllm_selector_jax.models import huggingface
config = huggingface.read_config({str(base)!r})
tokenizer, options = huggingface.read_processor({str(base)!r})
assert tokenizer("<image>")["input_ids"] == [1, 4] and options.pad
"""
  subprocess.run([sys.executable, "-c", code], check=True)


def test_the_normalisation_on_the_device_is_the_processor_s(base):
  from mllm_selector_jax.models import vision

  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
  theirs = processor.load_image_processor(base)(PIL.Image.fromarray(pixels))
  config = huggingface.read_config(base)
  ours = vision.normalise_pixels(pixels[None], config.image_mean, config.image_std)
  np.testing.assert_allclose(
    ours[0].transpose(2, 0, 1), theirs["pixel_values"][0], atol=1e-6
  )
