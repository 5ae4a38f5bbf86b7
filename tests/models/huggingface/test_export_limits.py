"""Limits of images that an export's own processor keeps to."""

import json

import numpy as np
import pytest
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import ImageTokens
from tests.models import tiny
from tests.models.huggingface.test_image_options import make_images, make_processor

SIZES = [(64, 90), (200, 40), (130, 130), (20, 25)]
FAMILIES = {
  "internvl": ("qwen2", 3),
  "llava_next": ("llama", 2),
  "llava_onevision": ("qwen2", 2),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_cuts_into_as_few_tiles_as_the_run_did(tmp_path, family):
  decoder, most = FAMILIES[family]
  base, out = tmp_path / "base", tmp_path / "out"
  tiny.make_base(base, family=family, decoder=decoder, num_hidden_layers=1)
  config = huggingface.read_config(base)
  _, options = huggingface.read_processor(base)
  free = BaseImages(options, ImageTokens(4))
  limited = BaseImages(options, ImageTokens(4), max_tiles=most)
  params = huggingface.read_params(base, config)
  huggingface.write_model(out, config, params, base, images=limited.limited)
  assert huggingface.read_processor(out)[1] == limited.limited != options
  fields = transformers.AutoConfig.from_pretrained(out).to_dict()
  if "image_grid_pinpoints" in fields:  # by which the model itself lays features out
    stated = json.loads((out / "preprocessor_config.json").read_text())
    assert fields["image_grid_pinpoints"] == stated["image_grid_pinpoints"]
  theirs, fewer = make_processor(family, out).image_processor, 0
  tiled = {"crop_to_patches": True} if family == "internvl" else {}
  for image in make_images(SIZES):
    wanted = np.asarray(theirs(image, **tiled)["pixel_values"])
    tiles = wanted.reshape(-1, 3, 32, 32)
    assert limited.lay_out(*image.size).tiles == len(tiles)
    fewer += len(tiles) < free.lay_out(*image.size).tiles
  assert fewer > 0


def test_without_limits_an_export_has_the_base_s_processor(tmp_path):
  base, out = tiny.make_base(tmp_path / "base", family="llava_next"), tmp_path / "out"
  config = huggingface.read_config(base)
  huggingface.write_model(out, config, huggingface.read_params(base, config), base)
  assert huggingface.read_processor(out)[1] == huggingface.read_processor(base)[1]
