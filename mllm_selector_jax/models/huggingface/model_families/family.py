"""What a family of whole models is: how its configuration is read and written."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families import read_decoder
from mllm_selector_jax.models.huggingface.tower_families import read_tower
from mllm_selector_jax.models.vision_config import VisionConfig
from mllm_selector_jax.types import MARK, InputError


def _keep(config: Any, raw: dict[str, Any]) -> None:
  """Changes nothing."""


def settle_tying(config: Any, raw: dict[str, Any]) -> None:
  """Takes the text model's word on tied embeddings where the whole has none.

  transformers 5 fills in True. Version 4, which wrote the published files, left out the
  whole's and followed the text model's.
  """
  if "tie_word_embeddings" not in raw:
    config.tie_word_embeddings = bool(config.text_config.tie_word_embeddings)


def _find_none(config: Any) -> str:
  return ""


def _read_no_marks(tokenizer: Any) -> dict[str, Any]:
  return {}


def _keep_all(value: dict[str, Any]) -> dict[str, Any]:
  return value


@dataclasses.dataclass(frozen=True)
class ModelFamily:
  """One kind of vision-language model that transformers knows.

  Attributes:
    architecture: transformers' class of the model.
    read: from the transformers config to the fields of `MllmConfig` that neither the
      tower nor the decoder decides. It raises an InputError that names every field
      that cannot be run.
    describe_processor: from the transformers config, the image token's text and the
      features of a tile to processor_config.json.
    image_token: the text of the image token, unless processor_config.json names it.
    named_tokens: special tokens that the family's processor finds by a name that
      tokenizer_config.json gives them.
    unread_tokens: tokens that may lie outside the vocabulary: no model reads them.
    settle: corrects the transformers config where transformers fills in a default that
      the config.json (the second argument) does not mean.
    image_marks: the tokens around and inside an image, by the fields of `ImageTokens`:
      attributes of the tokenizer that name them, with the names that they have where
      the tokenizer has no such attribute.
    read_marks: from the tokenizer to further fields of `ImageTokens`, for marks that
      are no single tokens or depend on a tile's place, and for texts around an image.
    writes_marks: whether the family's chat templates write these tokens; elsewhere its
      processor adds them.
    counts: whether config.json states the image tokens of a tile, `image_seq_length`.
    older_fields: fields of config.json that have another name in transformers 4, with
      that name. Exports have both.
    read_tower, read_decoder: from the transformers configs of the parts to ours, where
      they can stand in models of this family alone.
    describe_config: brings what transformers writes to config.json to the form in which
      the family's models are published.
    carried_part: what of a model no part of ours is made of, in words,
    find_carried: and from the transformers config to a regular expression of the
      canonical names of its tensors, which exports hold unchanged.
    find_unread: the same of tensors that are passed over, and exports do not hold.
      Both give "" for none.
  """

  architecture: str
  read: Callable[[Any], dict[str, Any]]
  describe_processor: Callable[[Any, str, int], dict[str, Any]]
  image_token: str = MARK
  named_tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
  unread_tokens: tuple[str, ...] = ()
  settle: Callable[[Any, dict[str, Any]], None] = _keep
  image_marks: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
  read_marks: Callable[[Any], dict[str, Any]] = _read_no_marks
  writes_marks: bool = False
  counts: bool = True
  older_fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
  read_tower: Callable[[Any], VisionConfig] = read_tower
  read_decoder: Callable[..., DecoderConfig] = read_decoder
  describe_config: Callable[[dict[str, Any]], dict[str, Any]] = _keep_all
  carried_part: str = ""
  find_carried: Callable[[Any], str] = _find_none
  find_unread: Callable[[Any], str] = _find_none


def read_llava_fields(config: Any) -> dict[str, Any]:
  """What LLaVA's configurations of all versions say in the same way.

  Raises:
    InputError: with every field that cannot be run.
  """
  refuse(find_projector_problems(config))
  return {
    "image_token": config.image_token_id,
    "feature_layer": read_feature_layer(config),
    "select": config.vision_feature_select_strategy,
    "projector_activation": config.projector_hidden_act,
  }


def read_feature_layer(config: Any) -> int | tuple[int, ...]:
  """The layer of a configuration, or its several layers."""
  layer = config.vision_feature_layer
  return layer if isinstance(layer, int) else tuple(layer)


def find_layer_problems(config: Any) -> list[str]:
  """What of `vision_feature_layer` cannot be run by a family that takes one layer."""
  layer = config.vision_feature_layer
  if isinstance(layer, int):
    return []
  return [f"vision_feature_layer is {layer!r}, only a single number can be run"]


def find_projector_problems(config: Any) -> list[str]:
  """What cannot be run of `multimodal_projector_bias`."""
  if config.multimodal_projector_bias:
    return []
  return ["multimodal_projector_bias is False, only True can be run"]


def refuse(problems: list[str]) -> None:
  """Raises the problems as one InputError, if there are any."""
  if problems:
    raise InputError("; ".join(problems))
