"""Image files to pixels: odd formats, broken and hostile files."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data.images import decoding
from mllm_selector_jax.types import RowError


def picture(width=40, height=24, seed=0):
  """Smooth colours and an edge, so that every step of preparing shows."""
  y, x = np.mgrid[:height, :width]
  rng = np.random.default_rng(seed)
  base = np.stack([x * 5, y * 9, (x + y) * 3], -1) % 256
  base[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
  return Image.fromarray(base.astype(np.uint8))


def encode(image, form, **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def decode(data, **options):
  return np.asarray(decoding.decode_image(data, **options))


def reason_of(function, *arguments, **options):
  with pytest.raises(RowError) as caught:
    function(*arguments, **options)
  return caught.value.reason


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back_exactly(form):
  options = {"lossless": True} if form == "WEBP" else {}
  data = encode(picture(), form, **options)
  np.testing.assert_array_equal(decode(data), np.asarray(picture()))


def test_jpeg_is_what_pillow_decodes():
  data = encode(picture(), "JPEG", quality=90)
  wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
  np.testing.assert_array_equal(decode(data), wanted)
  assert np.abs(wanted.astype(int) - np.asarray(picture())).mean() < 12


def test_gif_is_its_palette():
  data = encode(picture().quantize(16), "GIF")
  wanted = np.asarray(picture().quantize(16).convert("RGB"))
  np.testing.assert_array_equal(decode(data), wanted)


def test_animations_give_the_first_frame():
  red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
  for form in ("GIF", "PNG", "WEBP", "TIFF"):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(red, form, save_all=True, append_images=[blue], **options)
    np.testing.assert_array_equal(decode(data), np.asarray(red), err_msg=form)


def test_cmyk():
  cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
  np.testing.assert_array_equal(decode(encode(cmyk, "TIFF"))[0, 0], (255, 0, 0))
  jpeg = decode(encode(cmyk, "JPEG", quality=100))[0, 0].astype(int)
  np.testing.assert_allclose(jpeg, (255, 0, 0), atol=3)


def test_palette_with_transparency_keeps_its_colours():
  image = Image.new("P", (2, 1))
  image.putpalette([10, 20, 30, 200, 100, 50])
  image.putpixel((1, 0), 1)
  for transparency in (0, bytes([0, 128])):
    data = encode(image, "PNG", transparency=transparency)
    np.testing.assert_array_equal(decode(data), [[[10, 20, 30], [200, 100, 50]]])


@pytest.mark.parametrize("alpha", [0, 77, 255])
def test_alpha_is_dropped_not_blended(alpha):
  rgba = Image.new("RGBA", (3, 3), (200, 100, 50, alpha))
  np.testing.assert_array_equal(decode(encode(rgba, "PNG"))[1, 1], (200, 100, 50))
  gray = Image.new("LA", (3, 3), (90, alpha))
  np.testing.assert_array_equal(decode(encode(gray, "PNG"))[1, 1], (90, 90, 90))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_gray_of_16_bits_is_scaled(form):
  values = np.array(
    [[0, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16
  )
  found = decode(encode(Image.fromarray(values), form))
  wanted = np.array([0, 100, 100, 101, 255])
  np.testing.assert_array_equal(found, np.repeat(wanted[None, :, None], 3, 2))


def test_gray_of_16_bits_big_endian():
  raw = np.array([[0, 257 * 100, 65535]], ">u2")
  image = Image.frombytes("I;16B", (3, 1), raw.tobytes())
  found = decode(encode(image, "TIFF"))
  np.testing.assert_array_equal(found[0, :, 0], [0, 100, 255])


def test_rgb_of_16_bits_keeps_the_high_byte():
  row = b"\0" + struct.pack(">3H", 0xFF00, 0x80FF, 0x0012)

  def chunk(kind, body):
    return (
      struct.pack(">I", len(body))
      + kind
      + body
      + struct.pack(">I", zlib.crc32(kind + body))
    )

  data = b"\x89PNG\r\n\x1a\n" + chunk(
    b"IHDR", struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)
  )
  data += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
  np.testing.assert_array_equal(decode(data), [[[0xFF, 0x80, 0x00]]])


def test_one_bit_and_gray():
  bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
  np.testing.assert_array_equal(decode(encode(bits, "PNG"))[0, :, 1], [0, 255])
  gray = Image.new("L", (2, 2), 7)
  np.testing.assert_array_equal(decode(encode(gray, "PNG")), np.full((2, 2, 3), 7))


def test_exif_rotation_is_ignored():
  exif = Image.Exif()
  exif[0x0112] = 6  # turn by 90 degrees
  data = encode(picture(), "JPEG", exif=exif, quality=95)
  assert decode(data).shape == (24, 40, 3)
  np.testing.assert_array_equal(
    decode(data), decode(encode(picture(), "JPEG", quality=95))
  )


@pytest.mark.parametrize("mode", ["I", "F"])
def test_gray_of_32_bits_is_refused(mode):
  data = encode(Image.new(mode, (4, 4)), "TIFF")
  assert reason_of(decoding.decode_image, data) == "unsupported image"


def test_lab_is_converted():
  white = Image.new("LAB", (4, 4), (255, 128, 128))
  assert decode(encode(white, "TIFF")).min() >= 253


@pytest.mark.parametrize("form", decoding.FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_unreadable(form, share):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  data = encode(Image.fromarray(noise), form)
  cut = data[: int(len(data) * share)]
  assert reason_of(decoding.decode_image, cut) == "unreadable image"


def test_a_truncated_jpeg_that_passes_verify():
  data = encode(picture(200, 200), "JPEG")[:-400]
  Image.open(io.BytesIO(data)).verify()
  assert reason_of(decoding.decode_image, data) == "unreadable image"


def test_any_flipped_byte_gives_an_image_or_a_row_error():
  rng = np.random.default_rng(0)
  for form in decoding.FORMATS:
    data = bytearray(encode(picture(), form))
    for _ in range(40):
      broken = bytearray(data)
      broken[rng.integers(len(data))] ^= int(rng.integers(1, 256))
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
          assert decoding.decode_image(bytes(broken), 10_000).mode == "RGB"
        except RowError:
          pass


@pytest.mark.parametrize(
  "data",
  [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    b"SIMPLE  =                    T" + b" " * 50,
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
    b"<!DOCTYPE html><title>404</title>",
    b"RIFF\0\0\0\0AVI LIST",
    b"P6\n1 1\n255\nabc",
    b"\0",
  ],
  ids=["eps", "fits", "svg", "mp4", "html", "avi", "ppm", "zero"],
)
def test_other_formats_are_refused(data):
  assert reason_of(decoding.decode_image, data) == "unsupported image"


def test_the_pixel_cap_holds_before_decoding():
  head = b"\x89PNG\r\n\x1a\n"
  body = b"IHDR" + struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
  bomb = head + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
  bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert reason_of(decoding.decode_image, bomb) == "huge image"
  data = encode(picture(40, 24), "PNG")
  assert decode(data, max_pixels=40 * 24).shape == (24, 40, 3)
  assert reason_of(decoding.decode_image, data, max_pixels=40 * 24 - 1) == "huge image"


def test_our_cap_replaces_pillows(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    decode(encode(picture(), "GIF"))
    decode(encode(picture(), "PNG"))
  assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 201)])
def test_thin_images_whose_square_explodes(size):
  data = encode(Image.new("RGB", size), "PNG")
  assert reason_of(decoding.decode_image, data) == "huge image"
  assert decode(encode(Image.new("RGB", (1, 200)), "PNG")).shape == (200, 1, 3)
