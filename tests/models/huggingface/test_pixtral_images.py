"""The image processor of Pixtral and Mistral 3: read, followed, written, refused."""

import json

import numpy as np
import pytest
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models.huggingface import processor
from mllm_selector_jax.types import ImageTokens, InputError
from tests.data.test_image_forms import noise
from tests.data.test_pixtral_form import join_tiles

TOKENS = ImageTokens(7, end=(5,), between=(3,))
SIZES = [(90, 60), (42, 70), (5, 150), (1, 1), (1700, 500)]
MARKS = {"image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
# As the families are published: patches, patches along a token, the longest edge.
FAMILIES = {"llava": (16, 1, 1024), "mistral3": (14, 2, 1540)}


def make_config(family, **fields):
  patch, merge, edge = FAMILIES[family]
  vision = {"model_type": "pixtral", "patch_size": patch, "image_size": edge}
  if family == "mistral3":
    fields.setdefault("spatial_merge_size", merge)
  return transformers.AutoConfig.for_model(family, vision_config=vision, **fields)


def write(folder, family, fields=(), drop=(), **changes):
  """Both files as they are published, with changes of the first and of the second."""
  patch, merge, edge = FAMILIES[family]
  folder.mkdir(exist_ok=True)
  value = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "PixtralImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "patch_size": {"height": patch, "width": patch},
    "processor_class": "PixtralProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"longest_edge": edge},
    **changes,
  }
  (folder / "preprocessor_config.json").write_text(json.dumps(value))
  stated = {"processor_class": "PixtralProcessor", "image_token": "[IMG]", **MARKS}
  stated |= {"patch_size": patch, "spatial_merge_size": merge, **dict(fields)}
  stated = {name: item for name, item in stated.items() if name not in drop}
  (folder / "processor_config.json").write_text(json.dumps(stated))
  return folder


def read(folder, family, **fields):
  return processor.read_image_options(folder, make_config(family, **fields))


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_pixels_are_the_familys(tmp_path, family):
  patch, merge, _ = FAMILIES[family]
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
      # What PixtralProcessor gives it; what is written does without.
      given = {} if folder == written else {"patch_size": patch * merge}
      wanted, layout = theirs(noise(*size), **given), images.lay_out(*size)
      pixels = np.asarray(wanted["pixel_values"])[0].transpose(1, 2, 0)
      pixels = np.rint((pixels * options.std + np.array(options.mean)) * 255)
      joined = join_tiles(images.cut_tiles(noise(*size)), layout.grid)
      np.testing.assert_array_equal(joined, pixels)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_read_back(tmp_path, family):
  patch, merge, edge = FAMILIES[family]
  options = read(write(tmp_path / "x", family), family)
  described = processor.describe_image_options(options)
  again = processor.read_image_options(
    tmp_path, make_config(family), described=described
  )
  assert again == options
  assert (options.form, options.grid, options.rotate) == ("pixtral", 1, True)
  assert (options.size, options.longest_edge) == (patch * merge, edge)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_square_stands_for_the_longest_edge(tmp_path, family):
  folder = write(tmp_path / "x", family, size={"height": 700, "width": 700})
  assert read(folder, family).longest_edge == 700


def test_a_processor_without_merging_is_pixtrals(tmp_path):
  folder = write(tmp_path / "x", "llava", drop=["patch_size", "spatial_merge_size"])
  assert read(folder, "llava").size == 16
  folder = write(tmp_path / "x", "mistral3", drop=["spatial_merge_size"])
  with pytest.raises(InputError, match=r"spatial_merge_size of .* is 1, only 2 fits"):
    read(folder, "mistral3")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nested_form_of_transformers_5_is_read(tmp_path, family):
  folder = write(tmp_path / "x", family)
  options = read(folder, family)
  stated = json.loads((folder / "processor_config.json").read_text())
  stated["image_processor"] = processor.load_image_processor(folder).to_dict()
  (folder / "preprocessor_config.json").unlink()
  (folder / "processor_config.json").write_text(json.dumps(stated, default=dict))
  assert read(folder, family) == options


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
  ("changes", "fields", "message"),
  [
    ({"do_resize": False}, {}, "do_resize is off"),
    ({"rescale_factor": 1 / 127.5}, {}, "not 1/255"),
    ({"do_center_crop": True}, {}, "do_center_crop is on"),
    ({"size": {"height": 8, "width": 9}}, {}, "size is .*must have longest_edge"),
    ({}, {"patch_size": 12}, r"patch_size of processor_config\.json is 12, only 1[46]"),
    ({}, {"image_end_token": "x"}, r"image_end_token .* 'x', only '\[IMG_END\]' fits"),
    ({"image_processor_type": "CLIPImageProcessor"}, {}, "is of CLIPImageProcessor"),
  ],
)
def test_what_cannot_be_followed_is_named(tmp_path, family, changes, fields, message):
  folder = write(tmp_path / "x", family, fields, **changes)
  with pytest.raises(InputError, match=message) as error:
    read(folder, family)
  assert str(folder / "preprocessor_config.json") in str(error.value)


def test_pixtrals_processor_is_no_other_llavas(tmp_path):
  folder = write(tmp_path / "x", "llava")
  config = transformers.LlavaConfig()
  with pytest.raises(InputError, match=r"is of PixtralImageProcessor, but .*'llava'"):
    processor.read_image_options(folder, config)
