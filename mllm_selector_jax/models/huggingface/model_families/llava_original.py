"""LLaVA's own checkpoints: their config.json in the terms of transformers."""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mllm_selector_jax.models.huggingface.model_families.original_pinpoints import (
  FORMS,
  Pinpoints,
  read_pinpoints,
)
from mllm_selector_jax.types import InputError

# model_type of LLaVA's own checkpoints -> of their decoder.
DECODERS = {
  "llava": "llama",
  "llava_llama": "llama",
  "llava_mistral": "mistral",
  "llava_qwen": "qwen2",
}
Select = Literal["default", "full"]  # MllmConfig.select
_SELECTS: dict[str, Select] = {"patch": "default", "cls_patch": "full"}
_ASPECTS = re.compile(r"pad|anyres|anyres_max_[1-9]\d*")


class OriginalModel(NamedTuple):
  """What a config.json of LLaVA's own says.

  Attributes:
    decoder: model_type of the decoder.
    tower: directory or hub name of the vision tower.
    family: model_type of the transformers model that does the same.
    feature_layer, select: of MllmConfig; None chooses by the tower.
    fields: of the transformers config, beside these.
    pinpoints: that images are fitted to; None for a family that cuts no tiles.
  """

  decoder: str
  tower: str
  family: str
  feature_layer: int
  select: Select | None
  fields: dict[str, Any]
  pinpoints: Pinpoints | None


def read_original(path: Path, raw: dict[str, Any]) -> OriginalModel:
  """Reads the config.json of a checkpoint of LLaVA's own.

  Args:
    path: of the file, for messages.
    raw: what it holds.

  Raises:
    InputError: with every field that cannot be run.
  """
  kind = raw.get("model_type")
  if kind not in DECODERS:
    raise InputError(
      f"{path}: model_type is {kind!r}; of LLaVA's own checkpoints, supported are"
      f" {', '.join(DECODERS)}."
    )
  aspect = raw.get("image_aspect_ratio", "pad")
  tiled = str(aspect).startswith("anyres")
  merging = "spatial_unpad" if tiled else "flat"
  wanted = {
    "mm_projector_type": (raw.get("mm_projector_type", "linear"), "mlp2x_gelu"),
    "mm_use_im_start_end": (bool(raw.get("mm_use_im_start_end")), False),
    "mm_patch_merge_type": (raw.get("mm_patch_merge_type", "flat"), merging),
  }
  wrong = [f"{key} is {a!r}, only {b!r}" for key, (a, b) in wanted.items() if a != b]
  if not _ASPECTS.fullmatch(str(aspect)):
    wrong.append(
      f"image_aspect_ratio is {aspect!r}, only 'pad', 'anyres' or 'anyres_max_N'"
    )
  select = _SELECTS.get(raw.get("mm_vision_select_feature", "patch"))
  if select is None:
    wrong.append("mm_vision_select_feature is neither 'patch' nor 'cls_patch'")
  fields: dict[str, Any] = {}
  pinpoints = None
  if tiled:
    stated = raw.get("image_grid_pinpoints")
    pinpoints = read_pinpoints(stated)
    if pinpoints is None:
      wrong.append(f"image_grid_pinpoints is {str(stated)[:80]!r}, only {FORMS}")
  if wrong:
    raise InputError(f"{path}: {'; '.join(wrong)} can be run.")
  family = "llava_next" if tiled else "llava"
  if aspect not in ("pad", "anyres"):
    family, fields["vision_aspect_ratio"] = "llava_onevision", aspect
  return OriginalModel(
    DECODERS[kind],
    str(raw["mm_vision_tower"]),
    family,
    raw.get("mm_vision_select_layer", -2),
    # Tiles' features must stay a square: without the class token, if there is one.
    None if tiled else select,
    fields,
    pinpoints,
  )


def describe_tiles(
  square: dict[str, Any], side: int, family: str, pinpoints: list[list[int]]
) -> dict[str, Any]:
  """preprocessor_config.json of a family whose images are cut into tiles.

  Args:
    square: that of the vision tower.
    side: of a tile, in pixels.
    family: model_type of the whole.
    pinpoints: sizes (height, width) that images are fitted to.
  """
  names = {"llava_next": "LlavaNext", "llava_onevision": "LlavaOnevision"}
  kept: dict[str, Any] = {
    key: square[key]
    for key in (
      *("do_convert_rgb", "do_resize", "do_rescale", "rescale_factor", "resample"),
      *("do_normalize", "image_mean", "image_std"),
    )
    if key in square
  }
  both = {"height": side, "width": side}
  return {
    **kept,
    "image_processor_type": f"{names[family]}ImageProcessor",
    "do_pad": True,
    "image_grid_pinpoints": pinpoints,
    "size": {"shortest_edge": side} if family == "llava_next" else both,
    **({"crop_size": both} if family == "llava_next" else {}),
  }
