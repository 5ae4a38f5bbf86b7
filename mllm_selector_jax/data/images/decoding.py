"""Decodes an image file to an RGB image, safely.

Of an animation the first frame is taken. Transparency is dropped, not blended, as
the model families' own loaders and transformers' `load_image` do. An EXIF rotation
is applied if the family does so: LLaVA-1.5 does not. Gray of 16 bits is scaled to
8, where LLaVA would clip it to white.
"""

import contextlib
import io
import re
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image

from mllm_selector_jax.data.files.stand_ins import name_stranger
from mllm_selector_jax.data.images import orientation
from mllm_selector_jax.types import RowError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MOST_RATIO = 200  # of the longer to the shorter side
_MAGIC = re.compile(
  rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|BM|GIF8|II\*\0|MM\0\*", re.DOTALL
)
_ADDRESS = re.compile(r" <[\w.]+ object at 0x[0-9a-f]+>")
_LOCK = threading.Lock()


def decode_image(
  data: bytes,
  max_pixels: int = 64_000_000,
  *,
  rotate: bool = False,
  pads: bool = True,
) -> Image.Image:
  """A file's bytes as an RGB image, fully decoded.

  Args:
    data: the file's bytes.
    max_pixels: larger images are refused.
    rotate: turn the image as its EXIF entry says.
    pads: whether the image may be padded to a square, which then has at most four
      times `max_pixels`.

  Raises:
    RowError: "unreadable image", "huge image" or "unsupported image".
  """
  with _reporting(data):
    image = _open(data)
    _check_size(image.width, image.height, max_pixels, pads)
    image.load()
    rgb = _to_rgb(image)
    return orientation.turn_upright(image, rgb) if rotate else rgb


def measure_image(
  data: bytes,
  max_pixels: int = 64_000_000,
  *,
  rotate: bool = False,
  pads: bool = True,
) -> tuple[int, int]:
  """Width and height of what `decode_image` gives, from the file's header.

  A file whose pixels are truncated or broken is measured like any other.

  Args:
    data: the file's bytes.
    max_pixels: larger images are refused.
    rotate, pads: as of `decode_image`.

  Raises:
    RowError: as `decode_image` does, where the header shows the reason.
  """
  with _reporting(data):
    image = _open(data)
    _check_size(image.width, image.height, max_pixels, pads)
    if rotate and orientation.comes_late(image, data):
      return decode_image(data, max_pixels, rotate=rotate, pads=pads).size
    return orientation.measure_header(image, rotate)


@contextlib.contextmanager
def _reporting(data: bytes) -> Iterator[None]:
  """Refuses bytes of no allowed format; makes any error a RowError."""
  if not data:
    raise RowError("unreadable image", "the file is empty")
  if not _MAGIC.match(data):
    if stranger := name_stranger(data[:512]):
      raise RowError("unsupported image", stranger)
    raise RowError(
      "unsupported image", f"begins with {data[:8]!r}; allowed: {', '.join(FORMATS)}"
    )
  try:
    yield
  except RowError:
    raise
  # Pillow raises almost anything on broken files, and no file may end a run.
  except Exception as error:
    # Pillow names the buffer by its address, which differs from run to run.
    detail = _ADDRESS.sub("", str(error)) or type(error).__name__
    raise RowError("unreadable image", detail[:200]) from error


def _open(data: bytes) -> Image.Image:
  """Reads the header, without Pillow's own limit: the caller has another."""
  with _LOCK:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
      return Image.open(io.BytesIO(data), formats=FORMATS)
    finally:
      Image.MAX_IMAGE_PIXELS = limit


def _check_size(width: int, height: int, max_pixels: int, pads: bool) -> None:
  short, long = sorted((width, height))
  size = f"{width:,} x {height:,} pixels"
  if width * height > max_pixels:
    raise RowError("huge image", f"{size}, {max_pixels:,} allowed")
  # Preparing fits the shorter side, or pads to a square: thin images explode.
  if long > MOST_RATIO * short:
    raise RowError(
      "huge image", f"{size}: one side is more than {MOST_RATIO} times the other"
    )
  if pads and long * long > 4 * max_pixels:
    raise RowError("huge image", f"{size}: its padded square is too large")


def _to_rgb(image: Image.Image) -> Image.Image:
  mode = image.mode
  if mode.startswith("I;16"):
    gray = np.asarray(image).astype(np.uint32)
    image = Image.fromarray(((gray + 128) // 257).astype(np.uint8))
  elif mode in ("I", "F"):
    raise RowError("unsupported image", "32-bit gray has no defined white")
  elif mode in ("P", "PA", "LA", "La", "RGBa"):
    image = image.convert("RGBA")
  try:
    return image.convert("RGB")
  except ValueError as error:
    raise RowError("unsupported image", f"colours of mode {mode}") from error
