"""Where a model's files are: a directory, or a name on the Hugging Face hub."""

import json
import os
import re
from pathlib import Path
from typing import Any

from mllm_selector_jax.types import InputError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]*\w")
FILES = ("*.json", "*.jinja", "*.safetensors", "*.txt", "tokenizer.model", "LICENSE*")


def find_model(path: str | os.PathLike) -> Path:
  """The directory of a model; a hub name is looked up in the hub's cache first.

  No network is touched for a directory.

  Raises:
    InputError: neither a directory nor a hub name that can be had.
  """
  folder = Path(path).expanduser()
  if folder.is_dir():
    return folder
  if folder.exists():
    raise InputError(
      f"{path} is a file; a model is a directory with config.json and *.safetensors."
    )
  name = str(path)
  if not HUB_NAME.fullmatch(name):
    raise InputError(
      f"There is no directory {path}; a model is a Hugging Face directory in LLaVA"
      " form, or a hub name such as llava-hf/llava-1.5-7b-hf."
    )
  return _find_on_hub(name)


def _find_on_hub(name: str) -> Path:
  import huggingface_hub

  try:
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(FILES)))
  except Exception as error:
    # The hub's client raises a dozen kinds, each meaning: it cannot be had.
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    why = (
      "HF_HUB_OFFLINE is set and the hub's cache does not hold it"
      if offline
      else f"the hub did not give it ({type(error).__name__})"
    )
    raise InputError(
      f"There is no directory {name}; read as a name on the Hugging Face hub,"
      f" {why}. Give an existing directory"
      + (", or unset HF_HUB_OFFLINE." if offline else ", or check name and network.")
    ) from error


def read_json(path: Path) -> dict[str, Any]:
  """A JSON object from a file.

  Raises:
    InputError: missing, unreadable, or not an object.
  """
  try:
    value = json.loads(path.read_bytes().decode("utf-8"))
  except FileNotFoundError:
    raise InputError(
      f"{path} is missing: a model directory in LLaVA form needs it."
    ) from None
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f"{path} cannot be read as JSON: {error}") from error
  if not isinstance(value, dict):
    raise InputError(f"{path} holds a {type(value).__name__}, not a JSON object.")
  return value
