"""Reads and prepares the images of questions."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing.loader import Cache
from mllm_selector_jax.data.tokens.conversation import Size
from mllm_selector_jax.evaluation import question_files
from mllm_selector_jax.evaluation.question import Question, QuestionImage
from mllm_selector_jax.types import RowError

CACHE_BYTES = 256 * 2**20  # of prepared images, kept for further questions about them
T = TypeVar("T")


class Pictures:
  """Reads and prepares the images of questions, and caches them for later questions.

  Args:
    folders: the image folders of the evaluation, searched in order.
    images: how the images of the base become tiles.
    max_pixels: the maximum of pixels; larger images are refused.
  """

  def __init__(self, folders: Sequence[str], images: BaseImages, max_pixels: int):
    self._folders = folders
    self._images = images
    self._max_pixels = max_pixels
    self._cache = Cache(CACHE_BYTES)
    self._images_in_files = question_files.ImagesInFiles()

  def measure(self, question: Question) -> tuple[Size, ...]:
    """Returns width and height of each image; (1, 1) if no layout needs them.

    Raises:
      RowError: an image is missing or cannot be used.
    """
    return _for_each(question, self._measure_image)

  def read(self, question: Question) -> tuple[UInt8[np.ndarray, "_ S S 3"], ...]:
    """Returns the tiles of each image of a question.

    Raises:
      RowError: an image is missing or cannot be used.
    """
    count = len(question.images)
    return _for_each(question, lambda image: self.read_image(image, count))

  def read_image(
    self, image: QuestionImage, images: int = 1
  ) -> UInt8[np.ndarray, "t S S 3"]:
    """Returns the tiles of an image.

    Args:
      image: an image of a question.
      images: the number of images that the image is prepared to stand among.

    Raises:
      RowError: the image is missing or cannot be used.
    """
    key = image.key, self._images.is_several(images)
    tiles = self._cache.get(key)
    if tiles is None:
      tiles = self._images.cut_tiles(self._open(image), images)
      self._cache.put(key, tiles, tiles.nbytes)
    return tiles

  def hash_image(self, image: QuestionImage, counts: Sequence[int]) -> list[str]:
    """Returns hashes of an image as in the column `pixels` of the pool.

    Args:
      image: an image of a question.
      counts: numbers of images that the image is prepared to stand among.

    Raises:
      RowError: the image is missing or cannot be used.
    """
    pixels = self._open(image)
    return [self._images.hash_pixels(pixels, count) for count in counts]

  def _measure_image(self, image: QuestionImage) -> Size:
    if self._images.is_fixed:
      return 1, 1
    return self._images.measure(self._read_bytes(image), self._max_pixels)

  def _open(self, image: QuestionImage) -> Image.Image:
    return self._images.decode(self._read_bytes(image), self._max_pixels)

  def _read_bytes(self, image: QuestionImage) -> bytes:
    if image.place is not None:
      return self._images_in_files.read(image.place)
    folders = self._folders if image.folder is None else [image.folder]
    return ImageFolders.of(folders).read(image.name)


def _for_each(
  question: Question, function: Callable[[QuestionImage], T]
) -> tuple[T, ...]:
  """Calls a function for each image; a RowError says which of them it is about."""
  results = []
  for number, image in enumerate(question.images):
    try:
      results.append(function(image))
    except RowError as error:
      named = RowError(error.reason, f"{image.name}: {error.detail}")
      raise named.at_image(number, len(question.images)) from None
  return tuple(results)
