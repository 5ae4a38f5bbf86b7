"""Which directories a model is made of, and what its config is.

A directory that transformers writes is all of a model. LLaVA's
own checkpoints name their vision tower, which lies elsewhere, and have no token
for the image; a model being assembled has a directory for each part. All become
one description here, so that configs, weights and tokenizers are read one way.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.custom_code import name_custom_code
from mllm_selector_jax.models.huggingface.decoder_families import DECODERS
from mllm_selector_jax.models.huggingface.field_checks import find_reader
from mllm_selector_jax.models.huggingface.model_families import (
  FAMILIES,
  find_family,
  internvl_chat,
)
from mllm_selector_jax.models.huggingface.model_families.llava_original import (
  Select,
  describe_tiles,
  read_original,
)
from mllm_selector_jax.models.huggingface.model_families.original_pinpoints import (
  Pinpoints,
)
from mllm_selector_jax.models.huggingface.other_folders import (
  describe_type,
  refuse_others,
)
from mllm_selector_jax.models.huggingface.source import find_model, read_json
from mllm_selector_jax.models.huggingface.tokenizer_files import LOCAL, load_tokenizer
from mllm_selector_jax.models.huggingface.tower_families import TOWERS, read_tower
from mllm_selector_jax.models.huggingface.weights import list_files, list_keys
from mllm_selector_jax.models.huggingface.wrong_kinds import refusing_wrong_kinds
from mllm_selector_jax.types import MARK, InputError

IMAGE, PAD = MARK, "<pad>"
VOCAB_MULTIPLE = 64  # of a grown vocabulary, as llava-hf pads it


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
  with refusing_wrong_kinds(folder):
    return _find_parts(folder)


def _find_parts(folder: Path) -> Parts:
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
    find_family(config).settle(config, raw)
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
  original = read_original(folder / "config.json", raw)
  tower = folder / original.tower
  return join_parts(
    folder,
    tower if tower.is_dir() else find_model(original.tower),
    folder,
    decoder_kind=original.decoder,
    feature_layer=original.feature_layer,
    select=original.select,
    family=original.family,
    fields=original.fields,
    pinpoints=original.pinpoints,
  )


def join_parts(
  decoder: Path,
  vision: Path,
  projector: Path | None,
  decoder_kind: str | None = None,
  feature_layer: int = -2,
  select: Select | None = None,
  family: str = "llava",
  fields: dict[str, Any] | None = None,
  pinpoints: Pinpoints | None = None,
) -> Parts:
  """One model of a decoder, a vision tower and a projector.

  The vocabulary grows by `<image>`, and by `<pad>` for a tokenizer that has no
  padding token, to a multiple of 64 if the embedding has no room for them.

  Args:
    decoder, vision: directories.
    projector: a directory or file with its weights, or None.
    decoder_kind: model_type of the decoder, None for what its config says.
    feature_layer, select: of MllmConfig; None chooses by the tower.
    family: model_type of the whole.
    fields: more of the whole's transformers config.
    pinpoints: that images are fitted to, if the family cuts images into tiles.
  """
  from transformers import AutoConfig

  for folder in (decoder, vision):
    refuse_others(folder)
  text = load_hf_config(decoder, decoder_kind)
  tower = load_hf_config(vision)
  tower = getattr(tower, "vision_config", None) or tower
  for folder, found, families in ((decoder, text, DECODERS), (vision, tower, TOWERS)):
    try:
      find_reader("", found, families)
    except InputError as error:
      raise InputError(f"{folder / 'config.json'}: {error}.") from error
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
  if family == "llava_onevision":
    feature_layer = _fit_onevision_tower(tower, decoder)
  fields = fields or {}
  if pinpoints is not None:
    fields = {**fields, "image_grid_pinpoints": pinpoints.in_pixels(own.image_size)}
  config = AutoConfig.for_model(
    family,
    vision_config=tower,
    text_config=text,
    image_token_index=image,
    vision_feature_layer=feature_layer,
    vision_feature_select_strategy=select,
    tie_word_embeddings=bool(text.tie_word_embeddings),
    **fields,
  )
  return Parts(
    config,
    decoder,
    vision,
    projector,
    stored,
    tuple(added),
    padded=True,
    image_processor=_describe_images(config, vision / "preprocessor_config.json"),
  )


def _fit_onevision_tower(tower: Any, folder: Path) -> int:
  """The projected layer of LLaVA-OneVision's own checkpoints.

  LLaVA removes the last layer of the tower and takes what leaves the rest. The
  checkpoint's own tower has no such layer any more; the tower's config is told so.
  """
  layers = [
    int(found[1])
    for file in list_files(folder)
    for key in list_keys(file)
    if (found := re.search(r"vision_tower\..*\.layers\.(\d+)\.", key))
  ]
  if layers:
    tower.num_hidden_layers = 1 + max(layers)
    return -1
  return -2


def _describe_images(config: Any, path: Path) -> dict[str, Any] | None:
  """preprocessor_config.json of the whole, where the tower's (`path`) does not do.

  A DINOv2 is published with a processor that crops smaller images than its positions
  are for; the padded images of an assembled model have the tower's own size.
  """
  tower = config.vision_config
  if not path.is_file():
    return None
  side = read_tower(tower).image_size
  if config.model_type != "llava":
    pinpoints = config.image_grid_pinpoints
    return describe_tiles(read_json(path), side, config.model_type, pinpoints)
  if tower.model_type != "dinov2":
    return None
  return {
    **read_json(path),
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": side},
    "crop_size": {"height": side, "width": side},
  }
