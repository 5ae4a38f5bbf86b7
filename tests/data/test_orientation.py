"""EXIF rotations against transformers' loader, and sizes from headers alone."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data.images import decoding
from tests.data.test_images import decode, encode, picture, reason_of


def with_turn(form, turn, image=None):
  exif = Image.Exif()
  exif[0x0112] = turn
  options = {"lossless": True} if form == "WEBP" else {}
  return encode(image or picture(), form, exif=exif, **options)


def add_chunk(data, kind, body):
  """A PNG with one more chunk behind its pixels."""
  chunk = struct.pack(">I", len(body)) + kind + body
  chunk += struct.pack(">I", zlib.crc32(kind + body))
  end = data.rindex(b"IEND") - 4
  return data[:end] + chunk + data[end:]


@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5, 6, 7, 8, 0, 77])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_rotation_is_transformers_load_image(tmp_path, form, turn):
  from transformers.image_utils import load_image

  data = with_turn(form, turn)
  path = tmp_path / "image"
  path.write_bytes(data)
  wanted = load_image(str(path))
  np.testing.assert_array_equal(decode(data, rotate=True), np.asarray(wanted))
  assert decoding.measure_image(data, rotate=True) == wanted.size
  plain = decoding.decode_image(data)
  assert decoding.measure_image(data) == plain.size
  if form != "TIFF":  # which Pillow itself turns
    assert plain.size == (40, 24)


@pytest.mark.parametrize("kind", ["eXIf", "iTXt", "zTXt", "tEXt"])
def test_a_rotation_behind_the_pixels_of_a_png_is_found(kind):
  exif = Image.Exif()
  exif[0x0112] = 6
  raw = exif.tobytes()
  profile = f"\nexif\n{len(raw):8}\n{raw.hex()}\n".encode()
  body = {
    "eXIf": raw[6:],
    "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>',
    "zTXt": b"Raw profile type exif\0\0" + zlib.compress(profile),
    "tEXt": b"Raw profile type exif\0" + profile,
  }[kind]
  data = add_chunk(encode(picture(), "PNG"), kind.encode(), body)
  assert decode(data, rotate=True).shape == (40, 24, 3)
  assert decoding.measure_image(data, rotate=True) == (24, 40)
  assert decoding.measure_image(data) == (40, 24)


def test_measuring_decodes_no_pixels(monkeypatch):
  files = [with_turn(form, 6) for form in ("JPEG", "PNG", "WEBP", "TIFF")]
  files += [encode(picture(), form) for form in ("GIF", "BMP", "PNG")]
  files.append(add_chunk(encode(picture(), "PNG"), b"tEXt", b"date:create\0now"))
  wanted = [decoding.decode_image(data, rotate=True).size for data in files]

  def refuse(*_):
    raise AssertionError("decoded")

  monkeypatch.setattr(decoding, "_to_rgb", refuse)
  assert [decoding.measure_image(data, rotate=True) for data in files] == wanted


def test_broken_exif_turns_nothing():
  data = encode(picture(), "JPEG", exif=b"Exif\0\0no tags at all", quality=95)
  wanted = decode(encode(picture(), "JPEG", quality=95))
  np.testing.assert_array_equal(decode(data, rotate=True), wanted)
  assert decoding.measure_image(data, rotate=True) == (40, 24)


def test_measuring_refuses_what_the_header_shows():
  data = encode(picture(), "PNG")
  measure = decoding.measure_image
  assert reason_of(measure, data, max_pixels=40 * 24 - 1) == "huge image"
  for size in ((1, 300), (5000, 1)):
    assert reason_of(measure, encode(Image.new("RGB", size), "PNG")) == "huge image"
  assert reason_of(measure, b"") == "unreadable image"
  assert reason_of(measure, data[:20]) == "unreadable image"
  assert reason_of(measure, b"<svg/>") == "unsupported image"
