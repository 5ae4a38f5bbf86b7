"""The image processors of Qwen-VL and GLM-4.1V: followed, written, refused by name."""

import json

import numpy as np
import pytest
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models.huggingface import processor
from mllm_selector_jax.types import ImageTokens, InputError
from tests.data.test_image_forms import CLIP, noise
from tests.data.test_native_form import list_squares

TOKENS = ImageTokens(7)
SIZES = [(90, 60), (42, 70), (5, 150), (1, 1), (700, 500)]
VALUES = {
  "do_convert_rgb": True,
  "do_normalize": True,
  "do_rescale": True,
  "do_resize": True,
  "image_mean": list(CLIP),
  "image_std": [0.26862954, 0.26130258, 0.27577711],
  "resample": 3,
  "rescale_factor": 0.00392156862745098,
  "merge_size": 2,
  "temporal_patch_size": 2,
}
OF_QWEN2 = {
  **VALUES,
  "image_processor_type": "Qwen2VLImageProcessor",
  "min_pixels": 3136,
  "max_pixels": 12845056,
  "patch_size": 14,
}
# As the families are published.
PUBLISHED = {
  "qwen2_vl": {
    **OF_QWEN2,
    "processor_class": "Qwen2VLProcessor",
    "size": {"min_pixels": 3136, "max_pixels": 12845056},
  },
  "qwen2_5_vl": {**OF_QWEN2, "processor_class": "Qwen2_5_VLProcessor"},
  "qwen3_vl": {
    **VALUES,
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "processor_class": "Qwen3VLProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    "patch_size": 16,
  },
  "glm4v": {
    **VALUES,
    "image_processor_type": "Glm4vImageProcessor",
    "processor_class": "Glm4vProcessor",
    "size": {"shortest_edge": 12544, "longest_edge": 9633792},
    "patch_size": 14,
  },
}
FAMILIES = list(PUBLISHED)
QWEN = FAMILIES[:-1]
# The form, the side of a tile and of a window, and the bounds of pixels.
READ = {
  "qwen2_vl": ("native", 28, 0, 3136, 12845056),
  "qwen2_5_vl": ("native", 28, 4, 3136, 12845056),
  "qwen3_vl": ("native", 32, 0, 65536, 16777216),
  "glm4v": ("glm4v", 28, 0, 12544, 9633792),
}


def make_config(family, **vision):
  vision.setdefault("patch_size", PUBLISHED[family]["patch_size"])
  return transformers.AutoConfig.for_model(family, vision_config=vision)


def write(folder, family, drop=(), **changes):
  folder.mkdir(exist_ok=True)
  value = {**PUBLISHED[family], **changes}
  value = {key: item for key, item in value.items() if key not in drop}
  (folder / "preprocessor_config.json").write_text(json.dumps(value))
  return folder


def read(folder, family, **vision):
  return processor.read_image_options(folder, make_config(family, **vision))


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_pixels_are_the_familys(tmp_path, family):
  published = write(tmp_path / "published", family)
  options = read(published, family)
  written = tmp_path / "written"
  written.mkdir()
  described = processor.describe_image_options(options)
  (written / "preprocessor_config.json").write_text(json.dumps(described))
  images = BaseImages(options, TOKENS)
  for folder in (published, written):
    theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    for size in SIZES:
      wanted, layout = theirs(noise(*size)), images.lay_out(*size)
      grid = wanted["image_grid_thw"][0] // [1, 2, 2]
      assert (1, *layout.grid) == tuple(grid)
      squares = list_squares(wanted, options.size)
      pixels = np.rint((squares * options.std + np.array(options.mean)) * 255)
      tiles = images.cut_tiles(noise(*size))
      np.testing.assert_array_equal(tiles[layout.features], pixels)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_read_back(tmp_path, family):
  options = read(write(tmp_path / "x", family), family)
  described = processor.describe_image_options(options)
  again = processor.read_image_options(
    tmp_path, make_config(family), described=described
  )
  assert again == options
  assert (options.grid, options.rotate) == (1, True)
  found = options.form, options.size, options.window
  assert (*found, options.min_pixels, options.max_pixels) == READ[family]


def test_the_processor_of_glm_4_6v_is_that_of_glm_4_1v(tmp_path):
  options = read(write(tmp_path / "x", "glm4v"), "glm4v")
  newer = write(tmp_path / "y", "glm4v", image_processor_type="Glm46VImageProcessor")
  assert read(newer, "glm4v") == options
  theirs = processor.load_image_processor(newer)
  assert type(theirs).__name__ == "Glm46VImageProcessorPil"
  images = BaseImages(options, TOKENS)
  for size in SIZES:
    grid = theirs(noise(*size))["image_grid_thw"][0] // [1, 2, 2]
    assert (1, *images.lay_out(*size).grid) == tuple(grid)


@pytest.mark.parametrize("family", QWEN)
def test_all_names_of_the_bounds_are_read(tmp_path, family):
  drop = ("min_pixels", "max_pixels", "size")
  size = {"shortest_edge": 5000, "longest_edge": 90_000}
  pixels = {"min_pixels": 5000, "max_pixels": 90_000}
  forms = [
    read(write(tmp_path / "size", family, drop) and tmp_path / "size", family),
    read(write(tmp_path / "a", family, drop[:2], size=size), family),
    read(write(tmp_path / "b", family, drop[2:], **pixels), family),
    # transformers takes these before those of `size`.
    read(write(tmp_path / "c", family, size={"longest_edge": 1}, **pixels), family),
  ]
  bounds = [(each.min_pixels, each.max_pixels) for each in forms]
  default = 3136, 28 * 28 * 1280  # of the processor's class
  assert bounds == [default, (5000, 90_000), (5000, 90_000), (5000, 90_000)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nested_form_of_transformers_5_is_read(tmp_path, family):
  folder = write(tmp_path / "x", family)
  options = read(folder, family)
  nested = {"image_processor": processor.load_image_processor(folder).to_dict()}
  (folder / "preprocessor_config.json").unlink()
  (folder / "processor_config.json").write_text(json.dumps(nested, default=dict))
  assert read(folder, family) == options


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
  ("changes", "vision", "message"),
  [
    ({"do_resize": False}, {}, "do_resize is off"),
    ({"rescale_factor": 1 / 127.5}, {}, "not 1/255"),
    (
      {"patch_size": 12},
      {},
      r"patch_size is 12, but vision_config\.patch_size of config\.json is 1[46]",
    ),
    (
      {"merge_size": 1},
      {},
      r"merge_size is 1, but vision_config\.spatial_merge_size of config\.json is 2",
    ),
    (
      {"temporal_patch_size": 1},
      {},
      r"temporal_patch_size is 1, but vision_config\.temporal_patch_size",
    ),
    (
      {"merge_size": 4},
      {"spatial_merge_size": 4},
      r"vision_config\.spatial_merge_size of config\.json is 4, only 2 can be",
    ),
    (
      {"size": {"shortest_edge": 9000, "longest_edge": 8000}},
      {},
      "is 9,000, longest_edge .* 8,000",
    ),
    (
      {"size": {"shortest_edge": 10**9, "longest_edge": 10**9}},
      {},
      "at most 16,777,216",
    ),
    (
      {"size": {"shortest_edge": "many", "longest_edge": 9}},
      {},
      "size is .*must have shortest_edge and longest_edge",
    ),
    ({"image_processor_type": "CLIPImageProcessor"}, {}, "is of CLIPImageProcessor"),
  ],
)
def test_what_cannot_be_followed_is_named(tmp_path, family, changes, vision, message):
  drop = ("min_pixels", "max_pixels") if "size" in changes else ()
  folder = write(tmp_path / "x", family, drop, **changes)
  with pytest.raises(InputError, match=message) as error:
    read(folder, family, **vision)
  assert str(folder / "preprocessor_config.json") in str(error.value)


def test_a_window_is_no_smaller_than_a_token(tmp_path):
  folder = write(tmp_path / "x", "qwen2_5_vl")
  with pytest.raises(InputError, match=r"window_size of config\.json is 14, smaller"):
    read(folder, "qwen2_5_vl", window_size=14)
