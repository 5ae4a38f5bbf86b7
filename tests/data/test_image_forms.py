"""Tiles and layouts of InternVL, LLaVA-NeXT and LLaVA-OneVision.

The independent reference is transformers: its image processors in their Pillow form
for the tiles, its models' packing of features for the layouts. There each feature is
its own number, so that what comes out says where every feature went.
"""

import dataclasses
import functools
import types

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextConfig, LlavaOnevisionConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
  GotOcr2ImageProcessorPil,
)
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import (
  LlavaNextImageProcessorPil,
)
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
  LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.modeling_llava_onevision import (
  LlavaOnevisionModel,
)
from transformers.models.llava_onevision.processing_llava_onevision import (
  LlavaOnevisionProcessor,
)

from mllm_selector_jax.data.images.decoding import MOST_RATIO
from mllm_selector_jax.data.images.image_forms import (
  BaseImages,
)
from mllm_selector_jax.types import NEWLINE, ImageOptions, ImageTokens

HALF = (0.5, 0.5, 0.5)
CLIP = (0.48145466, 0.4578275, 0.40821073)
TOKENS = ImageTokens(7, begin=(3, 4), end=(5,))
NEXT_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
OV_SIDES = range(384, 2305, 384)

INTERNVL = ImageOptions(448, HALF, HALF, form="internvl", grid=16, max_tiles=12)
NEXT = ImageOptions(
  336, CLIP, HALF, form="anyres", grid=24, pinpoints=NEXT_PINPOINTS, rotate=True
)
ONEVISION = ImageOptions(
  384,
  CLIP,
  HALF,
  background=tuple(int(value * 255) for value in CLIP),
  form="anyres",
  grid=27,
  pinpoints=tuple((high, wide) for high in OV_SIDES for wide in OV_SIDES),
  max_features=9,
  tile_several=False,
)


@st.composite
def sizes(draw, most=5000):
  """Width and height: odd, tiny, huge and thin ones."""
  width = draw(st.integers(1, most))
  if draw(st.booleans()):
    least, longest = -(-width // MOST_RATIO), min(most, width * MOST_RATIO)
    height = draw(st.integers(least, longest))
  else:  # nearly of a simple shape, where rounding and ties matter
    shape = draw(st.integers(1, 12)) / draw(st.integers(1, 12))
    height = round(width / shape) + draw(st.integers(-1, 1))
  height = min(max(height, -(-width // MOST_RATIO)), most, width * MOST_RATIO)
  return width, height


def quick(test):
  return settings(deadline=None, max_examples=150, derandomize=True)(test)


@functools.lru_cache
def noise(width, height):
  rng = np.random.default_rng(width * 7919 + height)
  return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def list_tiles(processed, count=None):
  """The tiles of a processor's first image, as ours: channels last."""
  pixels = np.asarray(processed["pixel_values"])
  pixels = pixels[0] if pixels.ndim == 5 else pixels
  return pixels[:count].transpose(0, 2, 3, 1)


RAW = {"do_rescale": False, "do_normalize": False}


# InternVL.


@quick
@given(
  sizes(), st.integers(1, 3), st.sampled_from([1, 2, 5, 12, 24]), st.integers(1, 4)
)
@example((448, 448), 1, 12, 1)
@example((896, 896), 1, 12, 1)  # more than half of the pixels of 2 x 2
@example((633, 633), 1, 12, 1)
@example((634, 634), 1, 12, 1)  # just less and more than half of 2 x 2
def test_internvl_tokens_are_the_processors(size, fewest, most, images):
  width, height = size
  fewest = min(fewest, most)
  options = ImageOptions(
    448, HALF, HALF, form="internvl", grid=16, min_tiles=fewest, max_tiles=most
  )
  processor = types.SimpleNamespace(
    image_processor=GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}),
    image_seq_length=256,
    _merge_kwargs=lambda **kwargs: {"images_kwargs": kwargs},
  )
  wanted = InternVLProcessor._get_num_multimodal_tokens(
    processor,
    [(height, width)],
    crop_to_patches=True,
    min_patches=fewest,
    max_patches=most,
  )
  layout = BaseImages(options, TOKENS).lay_out(width, height, images)
  assert layout.tiles == wanted["num_image_patches"][0]
  assert len(layout.features) + 2 == wanted["num_image_tokens"][0]
  assert layout.tokens.tolist() == [3, 4, *[7] * (256 * layout.tiles), 5]
  assert layout.features.tolist() == list(range(256 * layout.tiles))


@quick
@given(sizes(400), st.integers(1, 3), st.sampled_from([1, 3, 12]))
@example((1, 1), 1, 12)
@example((28, 28), 1, 12)
def test_internvl_tiles_are_the_processors(size, fewest, most):
  fewest = min(fewest, most)
  image = noise(*size)
  options = ImageOptions(
    28, HALF, HALF, form="internvl", grid=2, min_tiles=fewest, max_tiles=most
  )
  wanted = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, **RAW)(
    image, crop_to_patches=True, min_patches=fewest, max_patches=most
  )
  found = BaseImages(options, TOKENS).cut_tiles(image, 1)
  np.testing.assert_array_equal(found, list_tiles(wanted))
  assert len(found) == BaseImages(options, TOKENS).lay_out(*size, 1).tiles


# LLaVA-NeXT and LLaVA-OneVision.


def pack(model, config, options, size, tiles):
  """What the family's model lays out: the numbers of features, and their values."""
  count = options.grid**2
  numbers = torch.arange(tiles * count, dtype=torch.float32)
  values = torch.rand(tiles * count, generator=torch.Generator().manual_seed(0))
  features = torch.stack([numbers, values], -1).reshape(tiles, count, 2)
  if model is LlavaOnevisionModel:
    extra = {"vision_aspect_ratio": f"anyres_max_{options.max_features}"}
  else:
    extra = {"vision_feature_select_strategy": "default"}
  packed, _ = model.pack_image_features(
    types.SimpleNamespace(config=config),
    [features],
    torch.tensor([size[::-1]]),
    image_newline=torch.full((2,), float(NEWLINE)),
    **extra,
  )
  return packed[0].numpy().T, values.numpy()


def describe(config_class, options, patch):
  return config_class(
    vision_config={
      "model_type": "clip_vision_model",
      "image_size": options.size,
      "patch_size": patch,
    },
    image_grid_pinpoints=[list(pair) for pair in options.pinpoints],
  )


NEXT_CONFIG = describe(LlavaNextConfig, NEXT, 14)
OV_CONFIG = describe(LlavaOnevisionConfig, ONEVISION, 14)


def count_next(options, width, height, patch=14):
  processor = types.SimpleNamespace(
    image_processor=types.SimpleNamespace(
      image_grid_pinpoints=[list(pair) for pair in options.pinpoints]
    ),
    patch_size=patch,
    num_additional_image_tokens=1,
  )
  processor._get_unpadded_features = functools.partial(
    LlavaNextProcessor._get_unpadded_features, processor
  )
  size = options.size
  count = LlavaNextProcessor._get_number_of_features
  return count(processor, height, width, size, size) - 1


def count_onevision(options, width, height):
  processor = types.SimpleNamespace(
    image_processor=types.SimpleNamespace(
      image_grid_pinpoints=[list(pair) for pair in options.pinpoints]
    ),
    num_image_tokens=options.grid**2,
    vision_aspect_ratio=f"anyres_max_{options.max_features}",
  )
  processor._get_unpadded_features = functools.partial(
    LlavaOnevisionProcessor._get_unpadded_features, processor
  )
  size = options.size
  return LlavaOnevisionProcessor._get_number_of_features(
    processor, height, width, size, size
  )


@quick
@given(sizes(), st.integers(1, 3))
@example((1, 1), 1)
@example((5000, 25), 1)
@example((25, 5000), 2)
@example((1, 200), 1)  # no line of the map shows it
@example((672, 672), 1)
def test_next_layout_is_the_models(size, images):
  layout = BaseImages(NEXT, TOKENS).lay_out(*size, images)
  (wanted, _), _ = pack(LlavaNextModel, NEXT_CONFIG, NEXT, size, layout.tiles)
  np.testing.assert_array_equal(layout.features, wanted)
  assert len(layout.features) == count_next(NEXT, *size)
  assert layout.tokens.tolist() == [3, 4, *[7] * len(wanted), 5]
  assert layout.taps.shape == layout.weights.shape == (0, 4)


@quick
@given(sizes())
@example((1, 1))
@example((5000, 25))
@example((2304, 2304))
@example((5000, 5000))
@example((1600, 1200))
def test_onevision_layout_is_the_models(size):
  layout = BaseImages(ONEVISION, TOKENS).lay_out(*size, 1)
  (numbers, wanted), values = pack(
    LlavaOnevisionModel, OV_CONFIG, ONEVISION, size, layout.tiles
  )
  assert len(layout.features) == count_onevision(ONEVISION, *size)
  interpolated = layout.features < NEWLINE
  np.testing.assert_array_equal(layout.features[~interpolated], numbers[~interpolated])
  mixed = (layout.weights * values[layout.taps]).sum(-1)
  order = -2 - layout.features[interpolated]
  assert sorted(order) == list(range(len(mixed)))
  np.testing.assert_allclose(mixed[order], wanted[interpolated], rtol=0, atol=1e-6)
  np.testing.assert_allclose(layout.weights.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("images", [2, 5])
def test_onevision_tiles_no_image_beside_others(images):
  layout = BaseImages(ONEVISION, TOKENS).lay_out(900, 700, images)
  (numbers, _), _ = pack(LlavaOnevisionModel, OV_CONFIG, ONEVISION, (900, 700), 1)
  assert layout.tiles == 1
  assert layout.features.tolist() == numbers.tolist() == [*range(729), NEWLINE]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_shrinking_follows_the_number_of_tiles(most):
  options = dataclasses.replace(ONEVISION, max_features=most)
  for size in ((2304, 1500), (800, 790), (5000, 4999)):
    layout = BaseImages(options, TOKENS).lay_out(*size, 1)
    (numbers, wanted), values = pack(
      LlavaOnevisionModel, OV_CONFIG, options, size, layout.tiles
    )
    assert len(layout.features) == len(numbers)
    assert 0 < len(layout.taps) <= 1.21 * most * 729
    order = -2 - layout.features[layout.features < NEWLINE]
    mixed = (layout.weights * values[layout.taps]).sum(-1)[order]
    np.testing.assert_allclose(
      mixed, wanted[layout.features < NEWLINE], rtol=0, atol=1e-6
    )


SMALL_PINPOINTS = ((28, 56), (56, 28), (56, 56), (84, 28), (28, 84))


@quick
@given(sizes(400))
@example((1, 200))
@example((200, 1))
@example((56, 56))
def test_next_tiles_are_the_processors(size):
  options = dataclasses.replace(NEXT, size=28, grid=2, pinpoints=SMALL_PINPOINTS)
  processor = LlavaNextImageProcessorPil(
    size={"shortest_edge": 28},
    crop_size={"height": 28, "width": 28},
    image_grid_pinpoints=[list(pair) for pair in SMALL_PINPOINTS],
    **RAW,
  )
  found = BaseImages(options, TOKENS).cut_tiles(noise(*size), 1)
  np.testing.assert_array_equal(found, list_tiles(processor(noise(*size))))
  np.testing.assert_array_equal(
    found, BaseImages(options, TOKENS).cut_tiles(noise(*size), 2)
  )
  assert len(found) == BaseImages(options, TOKENS).lay_out(*size, 1).tiles


@quick
@given(sizes(400))
@example((1, 200))
@example((200, 1))
@example((28, 28))
def test_onevision_tiles_are_the_processors(size):
  options = dataclasses.replace(ONEVISION, size=28, grid=2, pinpoints=SMALL_PINPOINTS)
  processor = LlavaOnevisionImageProcessorPil(
    size={"height": 28, "width": 28},
    image_mean=CLIP,
    image_grid_pinpoints=[list(pair) for pair in SMALL_PINPOINTS],
    **RAW,
  )
  image, other = noise(*size), noise(30, 20)
  found = BaseImages(options, TOKENS).cut_tiles(image, 1)
  np.testing.assert_array_equal(found, list_tiles(processor([[image]])))
  assert len(found) == BaseImages(options, TOKENS).lay_out(*size, 1).tiles
  both = np.asarray(processor([[image, other]])["pixel_values"])
  for number, one in enumerate((image, other)):
    found = BaseImages(options, TOKENS).cut_tiles(one, 2)
    assert len(found) == BaseImages(options, TOKENS).lay_out(*one.size, 2).tiles == 1
    np.testing.assert_array_equal(found, both[number].transpose(0, 2, 3, 1))
