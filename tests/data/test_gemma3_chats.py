"""Line feeds, shared beginnings and pixels of Gemma 3; see test_gemma_chats.py, too."""

import numpy as np
import pytest

from mllm_selector_jax.data.packing import prefixes
from tests.data.test_conversation import talk
from tests.data.test_gemma_chats import GEMMA3
from tests.data.test_image_forms import noise
from tests.data.test_native_chats import SIZES, sizes_of
from tests.gemma3_files import make_processor


def test_line_feeds_of_the_frame_and_of_an_image_are_one_token():
  encoder = GEMMA3.make(system="Be brief.")
  sample = encoder.encode(talk("<image>\nwhat is it?", "a star"), SIZES[:1])
  (image,) = sample.images
  around = [sample.tokens[image.start - 1], sample.tokens[image.stop]]
  found = encoder.tokenizer.convert_ids_to_tokens(around)
  assert found == ["\n\n\n\n", "\n\n"]
  assert sample.asked[image.stop + 1] and not sample.asked[: image.stop + 1].any()


def test_a_beginning_that_rows_share_holds_images_whole():
  encoder = GEMMA3.make()
  values = ("is <image>\nred or\n<image>\n?", "a star", "<image>\nand?", "two")
  sample = encoder.encode(talk(*values), sizes_of(values))
  found = prefixes.list_prefixes(sample, ["a", "b", "c"])
  assert len(found) == 3  # the third image follows an answer
  for prefix in found:
    cut = [image.start < prefix.tokens < image.stop for image in sample.images]
    assert not any(cut)


@pytest.mark.parametrize("size", [(90, 60), (16, 16), (5, 150), (1, 1), (33, 32)])
def test_pixels_are_the_processors(size):
  encoder = GEMMA3.make()
  image = noise(*size)
  processor = make_processor(encoder.tokenizer, encoder.images.options)
  found = processor.image_processor(image, do_rescale=False, do_normalize=False)
  wanted = np.asarray(found["pixel_values"][0]).transpose(1, 2, 0)
  (tile,) = encoder.images.cut_tiles(image)
  np.testing.assert_array_equal(tile, wanted)
  layout = encoder.images.lay_out(*size)
  assert (layout.tiles, len(layout.features), len(layout.tokens)) == (1, 4, 6)
