"""A tokenizer's files: read in every form, and written for transformers 4 and 5."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.custom_code import name_custom_code
from mllm_selector_jax.models.huggingface.source import (
  read_json,
  write_json,
  write_text,
)
from mllm_selector_jax.panics import explaining_panics
from mllm_selector_jax.types import InputError

CONFIG, MODEL = "tokenizer_config.json", "tokenizer.model"
FORMS = ("tokenizer.json", MODEL, "vocab.json")  # of a tokenizer, the best first
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATE = "chat_template.json"  # of transformers 4's processors
GENERIC = "PreTrainedTokenizerFast"  # reads tokenizer.json as it stands, in 4 and 5
MOST_ID = (1 << 24) - 1  # of a token; published vocabularies have up to 262,208
LOCAL = {"local_files_only": True, "trust_remote_code": False}
# Of how a tokenizer was loaded, which transformers 5 saves with it.
LOADING = ("is_local", "local_files_only", "backend")
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+\r?\n")


def load_tokenizer(folder: Path) -> Any:
  """The tokenizer of a directory, with the directory's chat template.

  Raises:
    InputError: missing, malformed, of a form that is not read, or custom code.
  """
  with explaining_panics(f"{folder}: the tokenizer cannot be read"):
    return _load_tokenizer(folder)


def _load_tokenizer(folder: Path) -> Any:
  from transformers import AutoTokenizer

  present = [name for name in FORMS if (folder / name).is_file()]
  if not present:
    name_custom_code(folder, CONFIG, "the tokenizer")
    raise InputError(f"{folder} has no tokenizer: none of {', '.join(FORMS)} is there.")
  if present[0] == MODEL:
    _check_sentencepiece(folder / MODEL)
  try:
    # AutoTokenizer reads config.json for the class, and fails on types that
    # transformers does not know, such as LLaVA's own.
    with _hiding_warnings("transformers.configuration_utils"):
      tokenizer = AutoTokenizer.from_pretrained(str(folder), **LOCAL)
  except Exception as first:
    from transformers import PreTrainedTokenizerFast

    try:
      tokenizer = PreTrainedTokenizerFast.from_pretrained(
        str(folder), local_files_only=True
      )
    except Exception:
      name_custom_code(folder, CONFIG, "the tokenizer", first)
      # Missing and malformed files raise many kinds; the first says more.
      raise InputError(f"{folder}: the tokenizer cannot be read: {first}") from first
  _check_ids(tokenizer, folder)
  longest = tokenizer.model_max_length  # which is compared with numbers of tokens
  if not isinstance(longest, int | float):
    raise InputError(
      f"{folder}/{CONFIG}: model_max_length is {longest!r:.80}, which is no number."
    )
  try:
    _ = tokenizer.all_special_ids
  except RecursionError as error:  # for an unknown token it looks for unk_token's id
    raise InputError(
      f"{folder}/{CONFIG}: a special token is not in the vocabulary, and neither is"
      f" unk_token, {tokenizer.unk_token!r:.80}."
    ) from error
  if (template := _read_old_template(folder)) is not None:
    tokenizer.chat_template = template
  return tokenizer


def _check_ids(tokenizer: Any, folder: Path) -> None:
  """Refuses ids so large that the tokenizers library would list gigabytes of gaps."""
  token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
  if largest > MOST_ID:
    raise InputError(
      f"{folder}: the tokenizer gives {token!r:.80} the id {largest:,}; at most"
      f" {MOST_ID:,} is read."
    )


@contextlib.contextmanager
def _hiding_warnings(name: str) -> Iterator[None]:
  """Hides the warnings of a logger: that a type of LLaVA's own is not transformers'."""
  logger = logging.getLogger(name)
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def _check_sentencepiece(path: Path) -> None:
  """Refuses a tokenizer.model that is not a sentencepiece model.

  transformers would take it for tiktoken's form and ask for that package.
  """
  import sentencepiece

  with path.open("rb") as file:
    first = file.readline(1 << 12)
  instead = (
    " Put tokenizer.json of the model's Hugging Face form beside it, which is read"
    " instead."
  )
  if _TIKTOKEN_LINE.fullmatch(first):
    raise InputError(
      f"{path} is a vocabulary in tiktoken's form (as Meta publishes Llama 3's), which"
      f" is not read: it lacks the special tokens.{instead}"
    )
  try:
    sentencepiece.SentencePieceProcessor(model_file=str(path))
  except Exception as error:
    what = "a Git LFS pointer" if first.startswith(b"version https://git-lfs") else ""
    raise InputError(
      f"{path} is {what or 'no sentencepiece model'}: {error}. Its download may be"
      f" incomplete; fetch it again.{instead}"
    ) from error


def _read_old_template(folder: Path) -> str | None:
  """The chat template that transformers 4 wrote beside a processor.

  None where chat_template.jinja, which is newer, stands there, or neither does.
  """
  if (folder / TEMPLATE).is_file() or not (folder / OLD_TEMPLATE).is_file():
    return None
  template = read_json(folder / OLD_TEMPLATE).get("chat_template")
  if not isinstance(template, str):
    raise InputError(
      f"{folder / OLD_TEMPLATE} has no text under chat_template. Remove the file, or"
      f" put the template into {TEMPLATE}."
    )
  return template


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
  """Writes a tokenizer as one file, tokenizer.json, that both versions read alike."""
  tokenizer.save_pretrained(str(folder))
  value = read_json(folder / CONFIG)
  # Classes of transformers 4 would add a BOS or split text by rules of their own.
  value["tokenizer_class"] = GENERIC
  write_json(folder / CONFIG, value)
  finish_tokenizer(folder)


def finish_tokenizer(folder: Path, named: Mapping[str, str] | None = None) -> None:
  """Gives tokenizer_config.json the names that transformers 4 knows, too.

  Args:
    folder: with the tokenizer's files.
    named: tokens that a processor finds by these names, added where they are missing.
  """
  path = folder / CONFIG
  if not path.is_file():
    return
  before = read_json(path)
  value = {key: item for key, item in before.items() if key not in LOADING}
  if value.get("tokenizer_class") == "TokenizersBackend":
    value["tokenizer_class"] = GENERIC
  extra = value.get("extra_special_tokens")
  if isinstance(extra, list):  # of which transformers 4 wants a dict
    del value["extra_special_tokens"]
    known = value.get("additional_special_tokens") or []
    value["additional_special_tokens"] = [
      *known,
      *(token for token in extra if token not in known),
    ]
  # transformers 4 reads named tokens from here, 5 from either place.
  specific = value.pop("model_specific_special_tokens", {})
  names = {**(named or {}), **specific, **value.get("extra_special_tokens", {})}
  if names:
    value["extra_special_tokens"] = names
  if value.get("tokenizer_class") == GENERIC:
    # transformers 4 would add token_type_ids, which no decoder of ours takes.
    value.setdefault("model_input_names", ["input_ids", "attention_mask"])
  if value != before:
    write_json(path, value)


def write_template(folder: Path, template: str | None) -> None:
  """Leaves one chat template, in the file that both versions read.

  Args:
    folder: with the source's files.
    template: the new one; None keeps the source's.
  """
  if template is None:
    template = _read_old_template(folder)
  if template is None:
    if (folder / TEMPLATE).is_file():  # transformers 4 would prefer the older file
      _drop_template(folder / OLD_TEMPLATE)
    return
  write_text(folder / TEMPLATE, template)
  for name in (CONFIG, OLD_TEMPLATE):
    _drop_template(folder / name)


def _drop_template(path: Path) -> None:
  """Takes an older chat template out of a file; a file of nothing else goes."""
  if not path.is_file():
    return
  value = read_json(path)
  if value.pop("chat_template", None) is not None:
    if value:
      write_json(path, value)
    else:
      os.unlink(path)
