"""Records, batches and errors that every part of the package shares.

Axis letters: N pool rows, K kept rows, G groups; B packed rows of a batch, L
tokens of a packed row; W row shards of a batch, each of B / W rows, and of one of
them: T supervised positions, A answers, M tiles (squares that the vision tower reads),
K interpolated features; P features of a tile, V vocabulary, D width, H heads, S pixels
along a tile's side.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

MARK = "<image>"  # where an image stands in a conversation's text
Params = dict[str, Any]  # nested, leaves are arrays, layers on the leading axis


class InputError(ValueError):
  """The user's input or configuration is wrong: one message, exit status 2."""


class RunError(RuntimeError):
  """The run cannot go on, through no fault of its input: exit status 1."""


class Stopped(Exception):
  """A SIGTERM arrived and the state was saved: exit status 143, resumable."""


class RowError(ValueError):
  """One row cannot be used: it is set aside and counted, the run goes on.

  Attributes:
    reason: one of `REASONS`, what the row is counted under.
    detail: what was found, for people.
  """

  def __init__(self, reason: str, detail: str = ""):
    assert reason in REASONS, reason
    super().__init__(f"{reason}: {detail}" if detail else reason)
    self.reason = reason
    self.detail = detail

  def at_image(self, number: int, count: int) -> "RowError":
    """Returns the error of one of a row's images; its detail says which it is.

    Args:
      number: the number of the image in the row, from 0.
      count: the number of images in the row.
    """
    which = f"image {number + 1} of {count}: " if count > 1 else ""
    return RowError(self.reason, which + self.detail)


# Every reason for which a row may be set aside, with what it means.
REASONS = {
  "malformed": "the record is not a conversation in a known form",
  "duplicate id": "an earlier row has the same id",
  "duplicate row": "an earlier row has the same conversation and image",
  "tool calls": "the conversation calls tools, which no template here writes",
  "video": "the record has a video, which is not decoded",
  "audio": "the record has audio, which the model does not take",
  "no supervised token": "no answer is left to learn from",
  "too long": "the row, or its image, does not fit into the longest allowed row",
  "masked by LLaVA": "a turn's text holds the template's own mark of an answer",
  "image marks": "<image> marks and images differ in number",
  "boxes": "the boxes that the record states are none, or do not fit text and image",
  "box form": "how the base's family writes boxes is not known",
  "too many images": "the row has more images than pool.max_images allows",
  "missing image": "the image file is not there",
  "unreadable image": "the image file is empty, truncated or broken",
  "huge image": "the image has more pixels than allowed",
  "unsupported image": "the file's format is not an allowed still-image one",
  "unsafe path": "the image is a URL, or no regular file of the image folders",
  "not a number": "the model's loss of the row is not finite",
}


class Picture(NamedTuple):
  """An image of a record.

  Attributes:
    name: path or name as the record has it; None if it has none.
    data: the image file's bytes where they lie inside the pool's file; None where
      they are a file of the image folder.
  """

  name: str | None
  data: bytes | None = None


class Record(NamedTuple):
  """One element of a pool file.

  Attributes:
    offset: where it stands: its first byte, or its number in files of numbered rows.
    length: in bytes.
    value: the parsed object; None if it cannot be used.
    reason: None, or a key of `REASONS`.
    detail: what was found.
    pictures: the images that the file says belong to it; None where the value
      itself names them.
    id: stands in for an id that the value lacks.
    source: where the row comes from, if the file says so outside the value.
  """

  offset: int
  length: int
  value: dict[str, Any] | None
  reason: str | None = None
  detail: str = ""
  pictures: tuple[Picture, ...] | None = None
  id: str | None = None
  source: str | None = None


class ImageTokens(NamedTuple):
  """Token ids that stand for an image.

  Attributes:
    image: the id wherever a feature of the image stands.
    begin, end: ids before the first and after the last feature; in forms that mark
      tiles, around the features of the tile of the whole image.
    between: ids between two rows of features or of tiles, in forms that mark the rows.
    templated: whether a chat template writes `begin` and `end` around the image token;
      elsewhere the family's processor adds them.
    tags: by row and column of a tile, ids before its features, in forms that mark
      tiles.
    below: ids between the last row of tiles and the tile of the whole image.
    mark: the one id that a chat template writes for an image instead, if it does.
    around: texts before and after an image, tokenised with the text beside them.
  """

  image: int
  begin: tuple[int, ...] = ()
  end: tuple[int, ...] = ()
  templated: bool = False
  between: tuple[int, ...] = ()
  tags: tuple[tuple[tuple[int, ...], ...], ...] = ()
  below: tuple[int, ...] = ()
  mark: int | None = None
  around: tuple[str, str] = ("", "")

  @property
  def marks(self) -> tuple[int, ...]:
    """All ids that stand around and inside an image, without `image`."""
    tags = (token for row in self.tags for tag in row for token in tag)
    ids = (*self.begin, *self.between, *self.end, *self.below, *tags)
    return tuple(dict.fromkeys(ids))

  @property
  def written(self) -> tuple[int, ...]:
    """What a chat template writes for an image."""
    if self.mark is not None:
      return (self.mark,)
    return (*self.begin, self.image, *self.end) if self.templated else (self.image,)


class ImageLayout(NamedTuple):
  """What an image becomes in a row of tokens; its size alone decides.

  A feature of the image is numbered tile * P + place, with P features a tile.

  Attributes:
    tiles: squares of pixels that the vision tower reads.
    tokens: ids in the row, marks around and inside the image included; the image
      token's id wherever a feature stands.
    features: the feature at each of the image tokens, in order; `NEWLINE` for the
      learned vector that ends a line, -2 - k for the interpolated feature k.
    taps: the four features that each interpolated one is made of.
    weights: of the taps, float32.
    places: the row and the column of each tile in the image, where tiles are the
      squares of an image of native resolution; otherwise empty.
    grid: rows and columns of these tiles; (0, 0) where `places` is empty.
  """

  tiles: int
  tokens: Int[np.ndarray, " m"]
  features: Int[np.ndarray, " n"]
  taps: Int[np.ndarray, "k 4"] = np.zeros((0, 4), np.int32)
  weights: Float[np.ndarray, "k 4"] = np.zeros((0, 4), np.float32)
  places: Int[np.ndarray, "p 2"] = np.zeros((0, 2), np.int32)
  grid: tuple[int, int] = (0, 0)


NEWLINE = -1  # among the features of an `ImageLayout`


class PlacedImage(NamedTuple):
  """An image in a row of tokens.

  Attributes:
    start: the place of its first token.
    layout: what it becomes.
  """

  start: int
  layout: ImageLayout

  @property
  def stop(self) -> int:
    """The place after its last token."""
    return self.start + len(self.layout.tokens)


class Sample(NamedTuple):
  """One tokenised conversation, as a model reads it.

  Attributes:
    tokens: token ids; the image token's id wherever a feature of an image stands.
    supervised: whether the token is learned, that is, predicted by the
      position before it.
    turns: the round, counted from 0, of a supervised token; -1 elsewhere.
    asked: whether the token is of a question's own text, not of the template.
    truncated: whether the end was cut off to fit the longest allowed row.
    images: in the order in which they stand.
  """

  tokens: Int[np.ndarray, " L"]
  supervised: Bool[np.ndarray, " L"]
  turns: Int[np.ndarray, " L"]
  asked: Bool[np.ndarray, " L"]
  truncated: bool
  images: tuple[PlacedImage, ...] = ()


class Batch(NamedTuple):
  """Packed rows, all that the device sees. Leaves are numpy or jax arrays.

  What a row has a varying number of (images, supervised positions, answers) is
  held a shard of rows, not a row: over many rows the numbers even out, so that
  little is padded, and no shard needs anything of another one.

  Attributes:
    tokens: token ids; features of images hold the image token's id, padding 0.
    positions: the position inside its sample, from 0.
    segments: 0 for padding, otherwise from 1 a number for every sample, and for
      every trunk (below), of the row.
    patches: index into the shard's table of features, -1 where there is text: the
      M * P features of its tiles, the learned vector that ends a line of an image,
      the K interpolated features.
    images: the tiles' pixels, not normalised; unused places are 0.
    predict: positions that predict a supervised token, counted through the
      shard's rows laid end to end; padding 0.
    targets: the tokens that they predict; padding 0.
    weights: 1 for a supervised token, 0 for padding.
    answers: positions, counted as `predict`'s, that predict the first token of an
      answer; padding 0.
    prefixes: the segment that a token sees beside its own: the trunk, which holds
      what several samples begin with; -1 for none. None where no row has a trunk.
    taps: the four tiles' features that each interpolated one is made of; None where
      the images' form has none.
    tap_weights: of the taps; padding 0.
    places: of each tile the number of its image among the shard's, from 1, its row and
      column in the image, and the image's rows and columns of tiles; padding 0. None
      where tiles are images of their own (`Tiling.native`).
    axes: the positions in time, row and column by which rotary embeddings turn; padding
      0. None where `positions` is all that they turn by (`Tiling.axes`).
  """

  tokens: Int[Any, "B L"]
  positions: Int[Any, "B L"]
  segments: Int[Any, "B L"]
  patches: Int[Any, "B L"]
  images: UInt8[Any, "W M S S 3"]
  predict: Int[Any, "W T"]
  targets: Int[Any, "W T"]
  weights: Float[Any, "W T"]
  answers: Int[Any, "W A"]
  prefixes: Int[Any, "B L"] | None = None
  taps: Int[Any, "W K 4"] | None = None
  tap_weights: Float[Any, "W K 4"] | None = None
  places: Int[Any, "W M 5"] | None = None
  axes: Int[Any, "B L 3"] | None = None


class Tiling(NamedTuple):
  """What of a model decides the arrays of a batch.

  Attributes:
    patches: P, features of a tile.
    side: S, pixels along a tile's side.
    native: whether tiles are squares of images of native resolution, which the vision
      tower reads together, and have a place in their image.
    axes: whether rotary embeddings turn by positions in time, row and column.
  """

  patches: int
  side: int
  native: bool = False
  axes: bool = False


@dataclasses.dataclass(frozen=True)
class ImageOptions:
  """How images become tiles and tokens, as the base model's image processor says.

  Attributes:
    size: side of the square that the vision tower reads, in pixels.
    mean, std: channel statistics by which the device standardises pixels in [0, 1].
    pad: pad to a centred square of `background`; otherwise resize the shorter
      side to `size` and crop the centre. Only the form "square" crops.
    background: the RGB colour of the padding, 0 to 255.
    resample: Pillow's number of the resampling filter (3 is bicubic).
    form: how an image is cut into tiles; a key of `data.images.image_forms.FORMS`.
    grid: features along a tile's side, after any merging; a tile has grid * grid.
    extra_features: of a tile, beside those of the grid: 1 where the class token's is
      kept, -1 where the first place is left out. Only the form "square" has any.
    min_tiles, max_tiles: bounds of the form "internvl", the thumbnail not counted.
    thumbnail: append the whole image as one more tile if there are several.
    pinpoints: sizes, (height, width) in pixels, to which the form "anyres" fits an
      image before it is cut.
    max_features: about how many tiles' features an image's map is shrunk to, or None.
    rotate: turn the image as its EXIF entry says before anything else.
    tile_several: cut images into tiles also in rows that have several images.
    min_pixels, max_pixels: bounds of an image of the form "native", whose tiles are the
      squares of its own resolution; of the form "glm4v", of two frames that both are
      the image; the form "gemma4" fits all images to the second.
    longest_edge: bound of the sides of an image of the form "pixtral", or the longer
      side of one of the forms "idefics3" and "smolvlm", in pixels.
    split: whether an image of these two forms is cut into tiles.
    window: tiles along the side of a window of the form "native", whose tiles lie
      together; 0 for tiles that lie row by row.
    token_counts: to which of them an image of the form "gemma4" may be limited.
  """

  size: int
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  pad: bool = True
  background: tuple[int, int, int] = (122, 116, 104)
  resample: int = 3
  form: str = "square"
  grid: int = 24
  extra_features: int = 0
  min_tiles: int = 1
  max_tiles: int = 1
  thumbnail: bool = True
  pinpoints: tuple[tuple[int, int], ...] = ()
  max_features: int | None = None
  rotate: bool = False
  tile_several: bool = True
  min_pixels: int = 0
  max_pixels: int = 0
  longest_edge: int = 0
  split: bool = True
  window: int = 0
  token_counts: tuple[int, ...] = ()
