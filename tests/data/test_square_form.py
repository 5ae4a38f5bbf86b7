"""LLaVA-1.5's form against transformers' processor, and by hand."""

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data.images.image_forms import BaseImages, square_form
from mllm_selector_jax.types import ImageOptions, ImageTokens
from tests.data.test_images import picture

HALF = (0.5, 0.5, 0.5)


def processor(size, **options):
  from transformers.models.llava.image_processing_pil_llava import (
    LlavaImageProcessorPil,
  )

  return LlavaImageProcessorPil(
    size={"shortest_edge": size},
    crop_size={"height": size, "width": size},
    do_rescale=False,
    do_normalize=False,
    **options,
  )


SHAPES = [(40, 24), (24, 40), (33, 33), (41, 24), (24, 41), (7, 3), (200, 31)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [16, 32, 56])
def test_padding_is_llavas_processor(shape, size):
  mean = (0.48145466, 0.4578275, 0.40821073)
  image = picture(*shape)
  wanted = processor(size, do_pad=True, image_mean=mean).preprocess(
    [image], return_tensors="np"
  )["pixel_values"][0]
  found = square_form.to_pixels(image, ImageOptions(size, mean, HALF))
  np.testing.assert_array_equal(found, wanted.transpose(1, 2, 0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resample", [2, 3])
def test_cropping_is_clips_processor(shape, resample):
  image = picture(*shape)
  wanted = processor(20, do_pad=False, resample=resample).preprocess(
    [image], return_tensors="np"
  )["pixel_values"][0]
  found = square_form.to_pixels(
    image, ImageOptions(20, HALF, HALF, pad=False, resample=resample)
  )
  np.testing.assert_array_equal(found, wanted.transpose(1, 2, 0))


def test_padding_by_hand():
  image = Image.new("RGB", (4, 2), (10, 20, 30))
  found = square_form.to_pixels(
    image, ImageOptions(4, HALF, HALF, background=(1, 2, 3))
  )
  wanted = np.full((4, 4, 3), (1, 2, 3))
  wanted[1:3] = 10, 20, 30
  np.testing.assert_array_equal(found, wanted)
  assert found.dtype == np.uint8


def test_a_square_of_the_right_size_is_untouched():
  image = picture(32, 32)
  for pad in (False, True):
    found = square_form.to_pixels(image, ImageOptions(32, HALF, HALF, pad=pad))
    np.testing.assert_array_equal(found, np.asarray(image))


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("images", [1, 3])
def test_every_image_is_one_tile(images, extra):
  options = ImageOptions(32, HALF, HALF, grid=4, extra_features=extra)
  layout = BaseImages(options, ImageTokens(9)).lay_out(70, 20, images)
  features = 16 + extra
  assert layout.tiles == 1
  assert layout.tokens.tolist() == [9] * features
  assert layout.features.tolist() == list(range(features))
  assert layout.taps.shape == layout.weights.shape == (0, 4)
  image = picture(70, 20)
  found = BaseImages(options, ImageTokens(9)).cut_tiles(image, images)
  assert found.shape == (1, 32, 32, 3)
  np.testing.assert_array_equal(found[0], square_form.to_pixels(image, options))
