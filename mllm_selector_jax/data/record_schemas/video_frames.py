"""Takes frames of a video as a record's images, where they lie there as images."""

from typing import Any

import numpy as np

from mllm_selector_jax.types import MARK, Record

VIDEO_MARK = "<video>"
_FIELDS = ("video", "videos")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def take_frames(record: Record, count: int) -> Record:
  """Returns the record with evenly spaced frames of its video in the video's place.

  A video is a list of the paths of its frames, in the field `video` or `videos` or in a
  part of a message. Anything else, such as the path of a video file, stays as it is.

  Args:
    record: as the file's format gives it.
    count: how many frames are taken; a shorter video gives all of its frames.
  """
  if record.value is None or record.pictures:
    return record
  value = dict(record.value)
  field = next((name for name in _FIELDS if value.get(name)), None)
  if field is None:
    changed = {key: _replace_parts(item, count) for key, item in value.items()}
    return record if changed == value else record._replace(value=changed)
  frames = _choose_frames(value[field], count)
  if frames is None or value.get("image") or value.get("images"):
    return record
  del value[field]
  marks = f"{MARK}\n" * len(frames)
  value = {key: _replace_marks(item, marks) for key, item in value.items()}
  return record._replace(value=value | {"images": frames})


def _choose_frames(video: Any, count: int) -> list[str] | None:
  """The frames that are taken of a video; None if it is no list of frames."""
  if isinstance(video, list) and len(video) == 1 and isinstance(video[0], list):
    video = video[0]
  if not isinstance(video, list) or not video:
    return None
  if not all(isinstance(x, str) and x.lower().endswith(_SUFFIXES) for x in video):
    return None
  places = np.linspace(0, len(video) - 1, min(count, len(video))).round().astype(int)
  return [video[place] for place in places]


def _replace_marks(value: Any, marks: str) -> Any:
  """The value with the images' marks in the place of each video's, in all texts."""
  if isinstance(value, str):
    return value.replace(f"{VIDEO_MARK}\n", marks).replace(VIDEO_MARK, marks)
  if isinstance(value, list):
    return [_replace_marks(item, marks) for item in value]
  if isinstance(value, dict):
    return {key: _replace_marks(item, marks) for key, item in value.items()}
  return value


def _replace_parts(value: Any, count: int) -> Any:
  """The value with image parts in the place of each video part of a message."""
  if isinstance(value, dict):
    return {key: _replace_parts(item, count) for key, item in value.items()}
  if not isinstance(value, list):
    return value
  replaced: list[Any] = []
  for item in value:
    is_video = isinstance(item, dict) and item.get("type") == "video"
    frames = _choose_frames(item.get("video"), count) if is_video else None
    if frames is None:
      replaced.append(_replace_parts(item, count))
    else:
      replaced += [{"type": "image", "image": frame} for frame in frames]
  return replaced
