"""Gemma 3's form: an image is stretched to one square, whatever its shape."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.image_layout import ImageForm
from mllm_selector_jax.data.images.image_forms.square_form import lay_out_square
from mllm_selector_jax.types import ImageOptions


def cut_stretched(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "1 S S 3"]:
  """The one tile of an image."""
  return np.asarray(image.resize((options.size,) * 2, options.resample))[None]


STRETCHED = ImageForm(
  lay_out_square, cut_stretched, leads=False, by_size=False, pads=False
)
