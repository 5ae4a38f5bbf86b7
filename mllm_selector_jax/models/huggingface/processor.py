"""The tokenizer and what the image processor does to pixels."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.anyres_images import (
  describe_anyres_options,
  read_next_options,
  read_onevision_options,
)
from mllm_selector_jax.models.huggingface.custom_code import name_custom_code
from mllm_selector_jax.models.huggingface.gemma4_images import (
  describe_gemma4_options,
  read_gemma4_options,
)
from mllm_selector_jax.models.huggingface.idefics3_images import (
  describe_idefics3_options,
  describe_smolvlm_options,
  read_idefics3_options,
)
from mllm_selector_jax.models.huggingface.internvl_images import (
  describe_internvl_options,
  read_internvl_options,
)
from mllm_selector_jax.models.huggingface.model_families import (
  PIXTRAL,
  find_family,
  name_family,
)
from mllm_selector_jax.models.huggingface.model_parts import PAD, Parts, find_parts
from mllm_selector_jax.models.huggingface.pixtral_images import (
  describe_pixtral_options,
  read_pixtral_options,
)
from mllm_selector_jax.models.huggingface.processor_checks import (
  PREPROCESSOR,
  PROCESSOR,
  name_file,
)
from mllm_selector_jax.models.huggingface.qwen_images import (
  describe_glm_options,
  describe_qwen_options,
  read_qwen_options,
)
from mllm_selector_jax.models.huggingface.source import read_json, write_json
from mllm_selector_jax.models.huggingface.square_images import (
  describe_square_options,
  read_square_options,
)
from mllm_selector_jax.models.huggingface.stretched_images import (
  describe_stretched_options,
  read_stretched_options,
)
from mllm_selector_jax.models.huggingface.tokenizer_files import LOCAL, load_tokenizer
from mllm_selector_jax.models.huggingface.wrong_kinds import refusing_wrong_kinds
from mllm_selector_jax.types import ImageOptions, ImageTokens, InputError


def load_image_processor(folder: Path, described: dict[str, Any] | None = None) -> Any:
  """The image processor of a directory, in its Pillow form.

  Args:
    folder: the directory.
    described: preprocessor_config.json, in place of the directory's.

  Raises:
    InputError: missing or malformed.
  """
  if described is not None:
    with tempfile.TemporaryDirectory() as stand_in:
      write_json(Path(stand_in) / PREPROCESSOR, described)
      return load_image_processor(Path(stand_in))
  if not any((folder / name).is_file() for name in (PREPROCESSOR, PROCESSOR)):
    raise InputError(
      f"{folder} has no {PREPROCESSOR}, which says how images are prepared."
    )
  from transformers import AutoImageProcessor

  try:
    return AutoImageProcessor.from_pretrained(str(folder), backend="pil", **LOCAL)
  except Exception as error:
    name_custom_code(folder, PREPROCESSOR, "the image processor", error)
    # A missing key, a wrong type, an unknown class: all mean a wrong file.
    raise InputError(
      f"{folder}: the image processor cannot be read: {error}"
    ) from error


MOST_PIXELS = 1 << 26  # to which an image may be enlarged; published models take 4 M
# By `name_family`: the image processor, and what reads that. Other models
# are of LLaVA-1.5's form and may have any processor but these.
_Read = Callable[[Path, Any, Any, bool], ImageOptions]
READERS: dict[str, tuple[str, _Read]] = {
  "internvl": ("GotOcr2ImageProcessor", read_internvl_options),
  "llava_next": ("LlavaNextImageProcessor", read_next_options),
  "llava_onevision": ("LlavaOnevisionImageProcessor", read_onevision_options),
  "qwen2_vl": ("Qwen2VLImageProcessor", read_qwen_options),
  "qwen2_5_vl": ("Qwen2VLImageProcessor", read_qwen_options),
  "qwen3_vl": ("Qwen2VLImageProcessor", read_qwen_options),
  "qwen3_5": ("Qwen2VLImageProcessor", read_qwen_options),
  "glm4v": ("Glm4vImageProcessor", read_qwen_options),
  "glm46v": ("Glm4vImageProcessor", read_qwen_options),
  "qwen3_vl_moe": ("Qwen2VLImageProcessor", read_qwen_options),
  "mistral3": ("PixtralImageProcessor", read_pixtral_options),
  PIXTRAL: ("PixtralImageProcessor", read_pixtral_options),
  "idefics3": ("Idefics3ImageProcessor", read_idefics3_options),
  "smolvlm": ("SmolVLMImageProcessor", read_idefics3_options),
  "gemma3": ("Gemma3ImageProcessor", read_stretched_options),
  "gemma4": ("Gemma4ImageProcessor", read_gemma4_options),
}
# Image processors that do as another one does.
_SAME = {"Glm46VImageProcessor": "Glm4vImageProcessor"}
# By form, what describes its options as preprocessor_config.json.
DESCRIBERS: dict[str, Callable[[ImageOptions], dict[str, Any]]] = {
  "square": describe_square_options,
  "internvl": describe_internvl_options,
  "anyres": describe_anyres_options,
  "native": describe_qwen_options,
  "glm4v": describe_glm_options,
  "pixtral": describe_pixtral_options,
  "idefics3": describe_idefics3_options,
  "smolvlm": describe_smolvlm_options,
  "stretched": describe_stretched_options,
  "gemma4": describe_gemma4_options,
}


def read_image_options(
  folder: Path,
  config: Any,
  pad: bool = False,
  described: dict[str, Any] | None = None,
) -> ImageOptions:
  """What the directory's image processor does, as options of ours.

  Args:
    folder: a directory with an image processor.
    config: the transformers config of the whole model, which it must fit.
    pad: pad to a square, as LLaVA-1.5 was trained, though the processor (CLIP's,
      as llava-hf publishes it) crops, or (SigLIP's) distorts. Nothing to the
      families that cut images into tiles.
    described: preprocessor_config.json, in place of the directory's.

  Raises:
    InputError: with everything the processor does that we cannot do.
  """
  processor = load_image_processor(folder, described)
  name = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
  name = _SAME.get(name, name)
  wanted, read = READERS.get(name_family(config), (None, read_square_options))
  if name != wanted and (wanted or name in {other for other, _ in READERS.values()}):
    raise InputError(
      f"{name_file(folder)} is of {name}, but config.json's model_type"
      f" {config.model_type!r} takes {wanted or 'LlavaImageProcessor'}. One of the two"
      " files is of another model."
    )
  with refusing_wrong_kinds(folder):
    options = read(folder, processor, config, pad)
    _refuse_huge(folder, options)
    return options


def _refuse_huge(folder: Path, options: ImageOptions) -> None:
  """Refuses an image processor that makes even the smallest image huge."""
  sizes = [options.size**2 * options.min_tiles, options.min_pixels]
  sizes += [height * width for height, width in options.pinpoints]
  if options.form in ("idefics3", "smolvlm"):  # to which images are made larger
    sizes.append(options.longest_edge**2)
  if (most := max(sizes)) > MOST_PIXELS:
    raise InputError(
      f"{name_file(folder)}: images would be made up to {most:,} pixels large;"
      f" {MOST_PIXELS:,} are allowed. Compare it with the file as it was published."
    )


def describe_image_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  return DESCRIBERS[options.form](options)


def read_processor(
  path: str | os.PathLike, pad: bool = False
) -> tuple[Any, ImageOptions]:
  """The tokenizer, and how images are prepared, of a model directory.

  Args:
    path: the directory, or a hub name.
    pad: pad images whatever the image processor says; see `read_image_options`.

  Raises:
    InputError: missing or malformed files, a tokenizer that does not know the
      config's image token or is larger than the vocabulary, an image processor
      that we cannot follow.
  """
  parts = find_parts(path)
  return read_tokenizer(parts), parts_image_options(parts, pad)


def parts_image_options(parts: Parts, pad: bool = False) -> ImageOptions:
  """How images are prepared for a model made of these parts."""
  return read_image_options(
    parts.vision, parts.config, pad or parts.padded, parts.image_processor
  )


def read_family_name(path: str | os.PathLike) -> str:
  """The `name_family` of a model directory, or of a hub name."""
  return name_family(find_parts(path).config)


def read_image_tokens(path: str | os.PathLike, tokenizer: Any) -> ImageTokens:
  """The ids that stand for an image in a model directory.

  Args:
    path: the directory, or a hub name.
    tokenizer: of it.

  Raises:
    InputError: the tokenizer does not know the marks around an image.
  """
  parts = find_parts(path)
  with refusing_wrong_kinds(parts.decoder):
    return _read_image_tokens(parts, tokenizer)


def _read_image_tokens(parts: Parts, tokenizer: Any) -> ImageTokens:
  family = find_family(parts.config)
  vocabulary = tokenizer.get_vocab()
  ids: dict[str, Any] = {}
  for field, (attribute, default) in family.image_marks.items():
    name = getattr(tokenizer, attribute, None) or default
    if name not in vocabulary:
      raise InputError(
        f"{parts.decoder}: the tokenizer has no token {name}, which stands beside or"
        f" inside an image ({attribute}). Add it (tokenizer.add_tokens)."
      )
    ids[field] = (vocabulary[name],)
  ids |= family.read_marks(tokenizer)
  token = _find_image_token(parts)
  return ImageTokens(token, templated=family.writes_marks, **ids)


def _find_image_token(parts: Parts) -> int:
  token = parts.config.image_token_id
  if not isinstance(token, int):
    raise InputError(
      f"{parts.decoder}: the image token of config.json is {token!r:.80}; it must be"
      " the id of a token."
    )
  return token


def read_tokenizer(parts: Parts) -> Any:
  """The tokenizer of a model made of these parts, with what it was given.

  Raises:
    InputError: missing, malformed, or not the config's.
  """
  with refusing_wrong_kinds(parts.decoder):
    return _read_tokenizer(parts)


def _read_tokenizer(parts: Parts) -> Any:
  folder, config = parts.decoder, parts.config
  tokenizer = load_tokenizer(folder)
  tokenizer.add_tokens(list(parts.added), special_tokens=True)
  if PAD in parts.added:
    tokenizer.pad_token = PAD
  family = find_family(config)
  name = family.image_token
  path = folder / "processor_config.json"
  if path.is_file():
    name = read_json(path).get("image_token") or name
  if isinstance(name, dict):  # a token with its options
    name = name.get("content")
  if not isinstance(name, str):
    raise InputError(f"{path}: image_token is {name!r:.80}, which is no text.")
  wanted = _find_image_token(parts)
  found = tokenizer.get_vocab().get(name)
  if found != wanted:
    raise InputError(
      f"{folder}: config.json says that {name} has the id {wanted}, but the tokenizer"
      + (" has no such token" if found is None else f" gives it the id {found}")
      + f". Add {name} to the tokenizer under that id (tokenizer.add_tokens)."
    )
  vocabulary = config.text_config.vocab_size
  known = tokenizer.get_vocab()
  outside = sum(known.get(token, 0) >= vocabulary for token in family.unread_tokens)
  if len(tokenizer) - outside > vocabulary:
    raise InputError(
      f"{folder}: the tokenizer has {len(tokenizer)} tokens, but config.json has a"
      f" vocab_size of {config.text_config.vocab_size}, which must not be smaller."
      " One of the two files is of another model."
    )
  return tokenizer
