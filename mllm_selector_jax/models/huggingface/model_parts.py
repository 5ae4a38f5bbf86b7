"""Which directories a model is made of, and what its config is.

A directory that transformers writes is all of a model. LLaVA's
own checkpoints name their vision tower, which lies elsewhere, and have no token
for the image; a model being assembled has a directory for each part. All become
one description here, so that configs, weights and tokenizers are read one way.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from mllm_selector_jax.models.huggingface.custom_code import name_custom_code
from mllm_selector_jax.models.huggingface.families import DECODERS, TOWERS, read_tower
from mllm_selector_jax.models.huggingface.model_families import (
  FAMILIES,
  internvl_chat,
)
from mllm_selector_jax.models.huggingface.other_folders import (
  describe_type,
  refuse_others,
)
from mllm_selector_jax.models.huggingface.source import find_model, read_json
from mllm_selector_jax.models.huggingface.tokenizer_files import LOCAL, load_tokenizer
from mllm_selector_jax.types import MARK, InputError

IMAGE, PAD = MARK, "<pad>"
VOCAB_MULTIPLE = 64  # of a grown vocabulary, as llava-hf pads it
# model_type of LLaVA's own checkpoints -> of their decoder.
ORIGINAL = {
  "llava": "llama",
  "llava_llama": "llama",
  "llava_mistral": "mistral",
  "llava_qwen": "qwen2",
}
Select = Literal["default", "full"]  # MllmConfig.select


@dataclasses.dataclass(frozen=True)
class Parts:
  """What a model is made of.

  Attributes:
    config: a transformers config of the whole, of one of `model_families`.
    decoder, vision, projector: directories (or, of the projector, one file) of
      the weights; None for a projector that is to be drawn.
    stored_vocab: rows of the embedding as it is stored; the config's vocabulary
      may be larger, its rows then being their mean.
    added: tokens that the tokenizer lacks and is given.
    padded: whether images are padded whatever the image processor says.
    image_processor: preprocessor_config.json in transformers' form, where the
      directory's own is not in it; None otherwise.
    stated_image_tokens: `image_seq_length` of config.json, None where it has none.
      Often stale: transformers fills in 576 for whatever tower. Nothing follows it.
  """

  config: Any
  decoder: Path
  vision: Path
  projector: Path | None
  stored_vocab: int
  added: tuple[str, ...] = ()
  padded: bool = False
  image_processor: dict[str, Any] | None = None
  stated_image_tokens: Any = None

  @property
  def whole(self) -> bool:
    """Whether it is one directory, with nothing to be added."""
    return self.decoder == self.vision == self.projector and not self.added


def load_hf_config(folder: Path, kind: str | None = None) -> Any:
  """The transformers config of a directory; no remote code is ever run.

  Args:
    folder: with config.json.
    kind: read it as one of this model_type.

  Raises:
    InputError: missing, malformed, or of a type that transformers does not know.
  """
  from transformers import AutoConfig

  path = folder / "config.json"
  value = read_json(path)
  try:
    if kind is None:
      return AutoConfig.from_pretrained(str(folder), **LOCAL)
    value = {key: item for key, item in value.items() if key != "model_type"}
    return AutoConfig.for_model(kind, **value)
  except Exception as error:
    name_custom_code(folder, "config.json", "the model", error)
    # Its validation raises many kinds, all of which mean a wrong file.
    raise InputError(f"{path} is not a valid configuration: {error}") from error


def find_parts(path: str | os.PathLike) -> Parts:
  """The parts of a model directory or hub name.

  Raises:
    InputError: it is of no form that can be read.
  """
  folder = find_model(path)
  refuse_others(folder)
  raw = read_json(folder / "config.json")
  kind = raw.get("model_type")
  if "mm_vision_tower" in raw:
    return _original_parts(folder, raw)
  image_processor = None
  if kind == internvl_chat.MODEL_TYPE:
    path = folder / "config.json"
    config = internvl_chat.read_internvl_chat(path, raw, load_tokenizer(folder))
    image_processor = internvl_chat.describe_images(raw, config)
  elif kind in FAMILIES:
    config = load_hf_config(folder)
    FAMILIES[kind].settle(config, raw)
  else:
    raise InputError(describe_type(folder, raw))
  return Parts(
    config,
    decoder=folder,
    vision=folder,
    projector=folder,
    stored_vocab=config.text_config.vocab_size,
    image_processor=image_processor,
    stated_image_tokens=raw.get("image_seq_length"),
  )


def list_folders(path: str | os.PathLike) -> list[Path]:
  """The directories that a model is read from, its own first."""
  parts = find_parts(path)
  return list(dict.fromkeys((parts.decoder, parts.vision)))


def _original_parts(folder: Path, raw: dict[str, Any]) -> Parts:
  """LLaVA's own checkpoint: projector beside the decoder, the tower elsewhere."""
  kind = raw.get("model_type")
  if kind not in ORIGINAL:
    raise InputError(
      f"{folder / 'config.json'}: model_type is {kind!r}; of LLaVA's own checkpoints,"
      f" supported are {', '.join(ORIGINAL)}."
    )
  projector = raw.get("mm_projector_type", "linear")
  wanted = {
    "mm_projector_type": (projector, "mlp2x_gelu"),
    "mm_use_im_start_end": (bool(raw.get("mm_use_im_start_end")), False),
    "image_aspect_ratio": (raw.get("image_aspect_ratio", "pad"), "pad"),
  }
  wrong = [f"{key} is {a!r}, only {b!r}" for key, (a, b) in wanted.items() if a != b]
  selects: dict[str, Select] = {"patch": "default", "cls_patch": "full"}
  select = selects.get(raw.get("mm_vision_select_feature", "patch"))
  if select is None:
    wrong.append("mm_vision_select_feature is neither 'patch' nor 'cls_patch'")
  if wrong:
    raise InputError(f"{folder / 'config.json'}: {'; '.join(wrong)} can be run.")
  tower = folder / str(raw["mm_vision_tower"])
  vision = tower if tower.is_dir() else find_model(raw["mm_vision_tower"])
  return join_parts(
    folder,
    vision,
    folder,
    decoder_kind=ORIGINAL[kind],
    feature_layer=raw.get("mm_vision_select_layer", -2),
    select=select,
  )


def join_parts(
  decoder: Path,
  vision: Path,
  projector: Path | None,
  decoder_kind: str | None = None,
  feature_layer: int = -2,
  select: Select | None = None,
) -> Parts:
  """One model of a decoder, a vision tower and a projector.

  The vocabulary grows by `<image>`, and by `<pad>` for a tokenizer that has no
  padding token, to a multiple of 64 if the embedding has no room for them.

  Args:
    decoder, vision: directories.
    projector: a directory or file with its weights, or None.
    decoder_kind: model_type of the decoder, None for what its config says.
    feature_layer, select: of MllmConfig; None chooses by the tower.
  """
  from transformers import LlavaConfig

  for folder in (decoder, vision):
    refuse_others(folder)
  text = load_hf_config(decoder, decoder_kind)
  tower = load_hf_config(vision)
  tower = getattr(tower, "vision_config", None) or tower
  for folder, found, families in ((decoder, text, DECODERS), (vision, tower, TOWERS)):
    if found.model_type not in families:
      raise InputError(
        f"{folder / 'config.json'}: model_type is {found.model_type!r}; supported are"
        f" {', '.join(families)}."
      )
  own = read_tower(tower)
  if select is None:
    select = "default" if own.class_token else "full"
  tokenizer = load_tokenizer(decoder)
  known = tokenizer.get_vocab()
  added = [IMAGE] * (IMAGE not in known)
  added += [PAD] * (tokenizer.pad_token_id is None and PAD not in known)
  tokenizer.add_tokens(added, special_tokens=True)
  stored = text.vocab_size
  if len(tokenizer) > stored:
    text.vocab_size = -(-len(tokenizer) // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
  if text.pad_token_id is None or PAD in added:
    text.pad_token_id = tokenizer.convert_tokens_to_ids(
      PAD if PAD in added else tokenizer.pad_token or PAD
    )
  image = tokenizer.convert_tokens_to_ids(IMAGE)
  config = LlavaConfig(
    vision_config=tower,
    text_config=text,
    image_token_index=image,
    vision_feature_layer=feature_layer,
    vision_feature_select_strategy=select,
    tie_word_embeddings=bool(text.tie_word_embeddings),
  )
  return Parts(
    config,
    decoder,
    vision,
    projector,
    stored,
    tuple(added),
    padded=True,
    image_processor=_describe_square(vision, own.image_size, tower.model_type),
  )


def _describe_square(folder: Path, side: int, kind: str) -> dict[str, Any] | None:
  """preprocessor_config.json for a tower at the size of its positions.

  A DINOv2 is published with a processor that crops smaller images than its positions
  are for; the padded images of an assembled model have the tower's own size.
  """
  path = folder / "preprocessor_config.json"
  if kind != "dinov2" or not path.is_file():
    return None
  return {
    **read_json(path),
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": side},
    "crop_size": {"height": side, "width": side},
  }
