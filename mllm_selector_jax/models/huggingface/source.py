"""Where a model's files are: a directory, or a name on the Hugging Face hub."""

import json
import os
import re
from pathlib import Path
from typing import Any

from mllm_selector_jax import storage
from mllm_selector_jax.types import InputError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]*\w")
MOST_JSON = 1 << 28  # bytes; a tokenizer.json has up to 40 MB
FILES = ("*.json", "*.jinja", "*.safetensors", "*.txt", "tokenizer.model", "LICENSE*")


def find_model(path: str | os.PathLike, weights: bool = True) -> Path:
  """The directory of a model; a hub name is looked up in the hub's cache first.

  No network is touched for a directory. Without `weights`, what the hub's cache lacks
  of them is not fetched.

  Raises:
    InputError: neither a directory nor a hub name that can be had.
  """
  folder = Path(path).expanduser()
  if folder.is_dir():
    return folder
  if folder.suffix == ".gguf":
    raise InputError(
      f"{path} is a model for llama.cpp; a model is a directory with config.json and"
      " *.safetensors, in float weights."
    )
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
  return _find_on_hub(name, weights)


def _find_on_hub(name: str, weights: bool) -> Path:
  import huggingface_hub
  from huggingface_hub import errors

  try:
    patterns = [file for file in FILES if weights or "safetensors" not in file]
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
  except Exception as error:
    # The client raises dozens of kinds; these have a remedy of their own.
    if huggingface_hub.constants.HF_HUB_OFFLINE:
      why = "HF_HUB_OFFLINE is set and the hub's cache does not hold it"
      remedy = "Give an existing directory, or unset HF_HUB_OFFLINE"
    elif isinstance(error, errors.GatedRepoError):
      why = "the hub gives it only to those who accepted its terms"
      remedy = f"Accept them at its page ({name}), then `hf auth login` or set HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
      why = "the hub has no such model, or it is private"
      remedy = "Check the name; for a private one `hf auth login` or set HF_TOKEN"
    else:
      why = f"the hub did not give it ({type(error).__name__})"
      remedy = "Give an existing directory, or check the network"
    raise InputError(
      f"There is no directory {name}; read as a name on the Hugging Face hub, {why}."
      f" {remedy}."
    ) from error


def write_text(path: Path, text: str) -> None:
  """Writes a text file that is either whole or not there."""
  with storage.writing(path) as partial:
    partial.write_text(text, "utf-8")


def write_json(path: Path, value: dict[str, Any]) -> None:
  """Writes a JSON file that is either whole or not there."""
  write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
  """A JSON object from a file.

  Raises:
    InputError: missing, unreadable, or not an object.
  """
  try:
    if (size := path.stat().st_size) > MOST_JSON:
      raise ValueError(f"{size:,} bytes, {MOST_JSON:,} are allowed")
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
