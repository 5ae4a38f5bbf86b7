"""The EXIF entry that says how an image is to be turned.

Pillow's `exif_transpose` decodes the image before it looks for the entry. Here the
entry is also found in the header alone, so that an image can be measured cheaply.
"""

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_SWAP_SIDES = (5, 6, 7, 8)
_WIDTH, _HEIGHT = 256, 257  # tags of TIFF
# In which a PNG may hold the entry, with the names that they then begin with.
_PNG_CHUNKS = {
  b"eXIf": (b"",),
  b"tEXt": (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"),
  b"zTXt": (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"),
  b"iTXt": (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"),
}


def turn_upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
  """Turns the pixels of an image as the image's entry says.

  Args:
    image: as it was decoded, with its entries.
    rgb: the same image's pixels.
  """
  turn = _TURNS.get(_read_entry(image))
  return rgb if turn is None else rgb.transpose(turn)


def measure_header(image: Image.Image, rotate: bool) -> tuple[int, int]:
  """Width and height of an image that was opened but not decoded.

  Args:
    image: from `Image.open`.
    rotate: the size after the image is turned as its entry says.
  """
  width, height = image.size
  if isinstance(image, TiffImageFile):
    # Pillow turns these itself when it decodes them.
    width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
    rotate = True
  if rotate and _read_entry(image) in _SWAP_SIDES:
    return height, width
  return width, height


def comes_late(image: Image.Image, data: bytes) -> bool:
  """Whether the entry may stand behind the pixels, as it can in a PNG."""
  if image.format != "PNG":
    return False
  place, behind = 8, False
  while place + 8 <= len(data):
    length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
    behind |= kind == b"IDAT"
    if behind and data.startswith(_PNG_CHUNKS.get(kind, ()), place + 8):
      return True
    place += length + 12
  return False


def _read_entry(image: Image.Image) -> int:
  """The number of the turn; 1, which is none, if the entries cannot be read."""
  try:
    # Not the method of PNG's own class, which decodes the image.
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
  except Exception:  # as with pixels, Pillow raises almost anything
    return 1
