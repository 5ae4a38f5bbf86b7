"""Image processors of the tiled families: read, followed, written back, refused."""

import json

import numpy as np
import pytest
import transformers
from PIL import Image

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models.huggingface import processor
from mllm_selector_jax.types import ImageTokens, InputError
from tests.models import tiny

SIZES = [(90, 60), (33, 32), (5, 150), (64, 64), (1, 1), (129, 40)]
PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96], [128, 128]]
VALUES = {
  "do_convert_rgb": True,
  "do_normalize": True,
  "do_rescale": True,
  "do_resize": True,
  "image_mean": [0.4, 0.5, 0.6],
  "image_std": [0.2, 0.3, 0.4],
  "resample": 3,
  "rescale_factor": 0.00392156862745098,
}
# As the families are published, with tiles of 32 x 32 pixels.
PUBLISHED = {
  "internvl": {
    **VALUES,
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "processor_class": "InternVLProcessor",
    "crop_to_patches": False,
    "min_patches": 1,
    "max_patches": 12,
    "size": {"height": 32, "width": 32},
  },
  "llava_next": {
    **VALUES,
    "image_processor_type": "LlavaNextImageProcessor",
    "processor_class": "LlavaNextProcessor",
    "aspect_ratio_setting": "anyres",
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_pad": True,
    "image_grid_pinpoints": PINPOINTS,
    "size": {"shortest_edge": 32},
  },
  "llava_onevision": {
    **VALUES,
    "image_processor_type": "LlavaOnevisionImageProcessor",
    "processor_class": "LlavaOnevisionProcessor",
    "do_pad": True,
    "image_grid_pinpoints": PINPOINTS,
    "size": {"height": 32, "width": 32},
  },
}
TOWERS = {"internvl": "internvl_vision", "llava_onevision": "siglip_vision_model"}
FAMILIES = list(PUBLISHED)


def make_config(family, **fields):
  """The model's config, whose tiles have 4 x 4 patches."""
  if family != "internvl":
    fields.setdefault("image_grid_pinpoints", PINPOINTS)
  if family == "llava_onevision":
    fields.setdefault("vision_aspect_ratio", "anyres_max_4")
  tower = fields.pop("tower", TOWERS.get(family, "clip_vision_model"))
  vision = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 2}
  return transformers.AutoConfig.for_model(
    family,
    vision_config=transformers.AutoConfig.for_model(tower, **vision),
    **fields,
  )


def write(folder, family, processor_fields=None, **changes):
  folder.mkdir(exist_ok=True)
  value = {**PUBLISHED[family], **changes}
  (folder / "preprocessor_config.json").write_text(json.dumps(value))
  if processor_fields is not None:
    (folder / "processor_config.json").write_text(json.dumps(processor_fields))
  return folder


class WithoutVideos:
  """Accepts that there is no video processor, for which torchvision is needed."""

  def check_argument_for_proper_class(self, name, value):
    """Checks all others."""
    if name != "video_processor":
      super().check_argument_for_proper_class(name, value)


class InternVLProcessor(WithoutVideos, transformers.InternVLProcessor):
  pass


class LlavaOnevisionProcessor(WithoutVideos, transformers.LlavaOnevisionProcessor):
  pass


def make_processor(family, folder):
  """The family's own processor, with the image processor of the directory."""
  images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
  core = tiny.make_tokenizer(special=(*tiny.SPECIAL, "<img>", "</img>", "<video>"))
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core.backend_tokenizer,
    pad_token="<pad>",
    extra_special_tokens={
      "start_image_token": "<img>",
      "end_image_token": "</img>",
      "context_image_token": "<image>",
      "video_token": "<video>",
    },
  )
  if family == "internvl":
    return InternVLProcessor(images, tokenizer, image_seq_length=4)
  if family == "llava_next":
    return transformers.LlavaNextProcessor(
      images,
      tokenizer,
      patch_size=8,
      vision_feature_select_strategy="default",
      num_additional_image_tokens=1,
    )
  return LlavaOnevisionProcessor(
    images,
    tokenizer,
    num_image_tokens=16,
    vision_feature_select_strategy="full",
    vision_aspect_ratio="anyres_max_4",
  )


def make_images(sizes):
  rng = np.random.default_rng(0)
  return [
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    for width, height in sizes
  ]


def to_bytes(pixel_values):
  """A processor's tiles as they were before it made numbers of them."""
  pixels = np.asarray(pixel_values).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  return np.rint((pixels * VALUES["image_std"] + VALUES["image_mean"]) * 255)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [[size] for size in SIZES] + [SIZES[:3], SIZES[3:]])
def test_tokens_and_pixels_are_the_familys(tmp_path, family, sizes):
  published = write(tmp_path / "published", family)
  options = processor.read_image_options(published, make_config(family))
  written = tmp_path / "written"
  written.mkdir()
  (written / "preprocessor_config.json").write_text(
    json.dumps(processor.describe_image_options(options))
  )
  images = make_images(sizes)
  for folder in (published, written):
    theirs = make_processor(family, folder)
    marks = theirs.tokenizer.convert_tokens_to_ids(["<image>", "<img>", "</img>"])
    tokens = ImageTokens(marks[0])
    if family == "internvl":
      tokens = ImageTokens(marks[0], (marks[1],), (marks[2],))
    wanted = theirs(images=[images], text=["<image>" * len(images)])
    ids = [token for token in wanted["input_ids"][0] if token in marks]
    count, found = len(images), []
    for image in images:
      layout = BaseImages(options, tokens).lay_out(*image.size, count)
      found += layout.tokens.tolist()
      tiles = BaseImages(options, tokens).cut_tiles(image, count)
      assert len(tiles) == layout.tiles
    assert found == ids
    pixels = to_bytes(wanted["pixel_values"])
    tiles = [BaseImages(options, tokens).cut_tiles(image, count) for image in images]
    if family != "internvl":  # padded to the same number of tiles
      most = max(map(len, tiles))
      blank = to_bytes(np.zeros((1, 3, 32, 32)))
      tiles = [np.concatenate([cut, *[blank] * (most - len(cut))]) for cut in tiles]
    np.testing.assert_array_equal(np.concatenate(tiles), pixels)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_read_back(tmp_path, family):
  options = processor.read_image_options(
    write(tmp_path / "x", family), make_config(family)
  )
  described = processor.describe_image_options(options)
  again = processor.read_image_options(
    tmp_path, make_config(family), described=described
  )
  assert again == options
  assert (options.size, options.rotate) == (32, True)
  assert options.grid == (2 if family == "internvl" else 4)
  assert (options.mean, options.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
  assert options.tile_several == (family != "llava_onevision")
  assert options.max_features == (4 if family == "llava_onevision" else None)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nested_form_of_transformers_5_is_read(tmp_path, family):
  folder = write(tmp_path / "x", family)
  options = processor.read_image_options(folder, make_config(family))
  nested = {"image_processor": processor.load_image_processor(folder).to_dict()}
  (folder / "preprocessor_config.json").unlink()
  (folder / "processor_config.json").write_text(json.dumps(nested, default=list))
  assert processor.read_image_options(folder, make_config(family)) == options
  nested["image_processor"]["do_resize"] = False
  (folder / "processor_config.json").write_text(json.dumps(nested, default=list))
  with pytest.raises(InputError, match=r"processor_config\.json: .*do_resize is off"):
    processor.read_image_options(folder, make_config(family))


ALL_REFUSE = [
  ({"do_resize": False}, "do_resize is off"),
  ({"rescale_factor": 1 / 127.5}, "not 1/255"),
  ({"image_std": [0.5]}, "not of three channels"),
  ({"size": {"height": 40, "width": 40}}, "vision_config.image_size of config.json"),
  ({"size": {"height": 32, "width": 48}}, "vision_config.image_size of config.json"),
  ({"image_processor_type": "CLIPImageProcessor"}, "is of CLIPImageProcessor, but"),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes, message", ALL_REFUSE)
def test_what_no_family_does_is_named(tmp_path, family, changes, message):
  folder = write(tmp_path / "x", family, **changes)
  with pytest.raises(InputError, match=message) as error:
    processor.read_image_options(folder, make_config(family))
  assert str(folder / "preprocessor_config.json") in str(error.value)


@pytest.mark.parametrize(
  "family, changes, model, message",
  [
    ("internvl", {"max_patches": 1000}, {}, r"max_patches 1000; .* <= 64"),
    ("internvl", {"min_patches": 3, "max_patches": 2}, {}, "min_patches is 3"),
    ("internvl", {"min_patches": 0}, {}, "min_patches is 0"),
    ("internvl", {"max_patches": "12"}, {}, "not numbers"),
    ("internvl", {}, {"downsample_ratio": 0.3}, "downsample_ratio of config.json"),
    (
      "internvl",
      {},
      {"vision_feature_select_strategy": "full"},
      "vision_feature_select_strategy of config.json is 'full'",
    ),
    (
      "internvl",
      {"processor_fields": {"image_seq_length": 256}},
      {},
      "image_seq_length of processor_config.json is 256, but a tile has 4",
    ),
    ("llava_next", {"image_grid_pinpoints": [[32, 40]]}, {}, "whole numbers of tiles"),
    ("llava_next", {"image_grid_pinpoints": [[0, 32]]}, {}, "whole numbers of tiles"),
    ("llava_next", {"image_grid_pinpoints": []}, {}, "not a list of pairs"),
    ("llava_next", {"image_grid_pinpoints": [[32]]}, {}, "not a list of pairs"),
    (
      "llava_next",
      {"image_grid_pinpoints": [[3200, 320]]},
      {"image_grid_pinpoints": [[3200, 320]]},
      "more than 64 tiles",
    ),
    (
      "llava_next",
      {"image_grid_pinpoints": PINPOINTS[:-1]},
      {},
      r"differs from image_grid_pinpoints of config.json: only here none, only there"
      r" \[128, 128\]",
    ),
    (
      "llava_onevision",
      {"image_grid_pinpoints": PINPOINTS[::-1]},
      {},
      "the order is another",
    ),
    ("llava_next", {"crop_size": {"height": 30, "width": 30}}, {}, "crop_size is"),
    (
      "llava_next",
      {},
      {"vision_feature_select_strategy": "full"},
      "no square of features of a tower with a class token",
    ),
    (
      "llava_onevision",
      {},
      {"vision_feature_select_strategy": "default"},
      "no square of features of a tower without a class token",
    ),
    (
      "llava_next",
      {"processor_fields": {"patch_size": 14}},
      {},
      "patch_size of processor_config.json is 14, but vision_config.patch_size of"
      " config.json is 8",
    ),
    (
      "llava_next",
      {"processor_fields": {"vision_feature_select_strategy": "full"}},
      {},
      "of processor_config.json is 'full', of config.json 'default'",
    ),
    (
      "llava_onevision",
      {"processor_fields": {"vision_aspect_ratio": "anyres_max_9"}},
      {},
      "of processor_config.json is 'anyres_max_9', of config.json 'anyres_max_4'",
    ),
    (
      "llava_onevision",
      {"processor_fields": {"num_image_tokens": 729}},
      {},
      "num_image_tokens of processor_config.json is 729, but a tile has 16",
    ),
    (
      "llava_onevision",
      {},
      {"vision_aspect_ratio": "anyres"},
      "vision_aspect_ratio of config.json is 'anyres'",
    ),
  ],
)
def test_what_cannot_be_followed_is_named(tmp_path, family, changes, model, message):
  folder = write(tmp_path / "x", family, **changes)
  with pytest.raises(InputError, match=message):
    processor.read_image_options(folder, make_config(family, **model))


@pytest.mark.parametrize("family", FAMILIES)
def test_llava_does_not_take_the_processor_of_a_tiled_family(tmp_path, family):
  folder = write(tmp_path / "x", family)
  with pytest.raises(InputError, match="takes LlavaImageProcessor"):
    processor.read_image_options(folder, tiny.make_hf_config())


def test_a_tower_with_a_class_token_may_keep_it(base):
  config = tiny.make_hf_config(llava_vision_feature_select_strategy="full")
  options = processor.read_image_options(base, config)
  assert (options.form, options.grid, options.extra_features) == ("square", 4, 1)
  options = processor.read_image_options(base, tiny.make_hf_config())
  assert (options.grid, options.extra_features) == (4, 0)
