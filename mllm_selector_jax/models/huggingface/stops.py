"""Which tokens end an answer, and the generation_config.json that says so."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.parts import Parts, find_parts
from mllm_selector_jax.models.huggingface.source import read_json

GENERATION = "generation_config.json"
# What an export keeps of its base's generation_config.json. The rest says how a base
# is sampled; a tuned model answers greedily, as it was evaluated.
KEPT = ("bos_token_id", "pad_token_id", "max_length", "max_new_tokens")


def read_ends(path: str | os.PathLike, tokenizer: Any) -> tuple[int, ...]:
  """Ids of the tokens by which a model's own files say that an answer ends.

  Args:
    path: the model's directory, or a hub name.
    tokenizer: the model's.

  Returns:
    The ids of generation_config.json, in its order, or of config.json where the
    former names none, and the tokenizer's end of sequence. Ids of ordinary text are
    left out: they end answers in one conversation template only (a new line in
    `plain`), not in the one that a model is tuned with next.

  Raises:
    InputError: a file is malformed.
  """
  return list_ends(find_parts(path), tokenizer)


def list_ends(parts: Parts, tokenizer: Any) -> tuple[int, ...]:
  """As `read_ends`, of a model made of these parts."""
  ids = _as_ids(_read_settings(parts).get("eos_token_id"))
  if not ids:
    ids = _as_ids(getattr(parts.config.text_config, "eos_token_id", None))
  added = tokenizer.added_tokens_decoder
  ids = [token for token in ids if token in added]
  return tuple(dict.fromkeys([*ids, *_as_ids(tokenizer.eos_token_id)]))


def describe_generation(parts: Parts, ends: Iterable[int]) -> dict[str, Any]:
  """The generation_config.json of a model that was tuned from these parts.

  Args:
    parts: of the base.
    ends: ids that end an answer. Readers that take one id take the first.

  Returns:
    Only values that transformers accepts together, so that its `save_pretrained`
    does not refuse the model.
  """
  text = parts.config.text_config
  settings = {key: getattr(text, key, None) for key in KEPT if key.endswith("_id")}
  settings |= {
    key: value for key, value in _read_settings(parts).items() if key in KEPT
  }
  ends = list(ends)
  if ends:
    settings["eos_token_id"] = ends[0] if len(ends) == 1 else ends
  return keep_valid(settings)


def keep_valid(settings: Mapping[str, Any]) -> dict[str, Any]:
  """The settings that transformers accepts, each together with those before it."""
  from transformers import GenerationConfig

  kept: dict[str, Any] = {}
  for key, value in settings.items():
    if value is None:
      continue
    try:
      # Settings said to be a model config's are not warned of before the check.
      config = GenerationConfig(_from_model_config=True, **kept, **{key: value})
      config.validate(strict=True)
    except (TypeError, ValueError):
      continue
    kept[key] = value
  return kept


def _read_settings(parts: Parts) -> dict[str, Any]:
  path = Path(parts.decoder) / GENERATION
  return read_json(path) if path.is_file() else {}


def _as_ids(value: Any) -> list[int]:
  """One id or a list of them as a list; what is no id is left out."""
  values = value if isinstance(value, list | tuple) else [value]
  return [each for each in values if type(each) is int and each >= 0]
