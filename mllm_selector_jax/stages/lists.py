"""Lists that people give: ids and target shares, in the config or in files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm_selector_jax.types import InputError


def read_ids(value: Any, name: str) -> list[str]:
  """Ids from a list, a comma-separated text, or a file.

  A file has one id a line, or is JSON: a list of ids or of records with ids.

  Raises:
    InputError: the file is none of these.
  """
  if not value:
    return []
  if not isinstance(value, str):
    return [str(each) for each in value]
  path = Path(value)
  if not path.is_file():
    if "/" in value or path.suffix in (".txt", ".json", ".jsonl"):
      raise InputError(f"{name}={value}: there is no such file.")
    return [part.strip() for part in value.split(",") if part.strip()]
  lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
  try:
    if lines and lines[0].startswith("["):
      found = json.loads("\n".join(lines))
    elif lines and lines[0].startswith("{"):
      found = [json.loads(line) for line in lines]
    else:
      found = lines
  except ValueError as error:
    raise InputError(f"{name}={value}: not whole JSON ({error}).") from error
  ids = [each.get("id") if isinstance(each, dict) else each for each in found]
  for place, each in enumerate(ids):
    if not isinstance(each, str | int):
      raise InputError(
        f"{name}={value}: entry {place} has no id; the file holds an id a line, or a"
        " JSON list of ids or of records with ids."
      )
  return [str(each) for each in ids]


def read_shares(value: Any) -> dict[str, float] | None:
  """Target shares by group name, from a dict, JSON text or a JSON file.

  Raises:
    InputError: it is none of these.
  """
  if not value:
    return None
  if isinstance(value, str):
    try:
      text = Path(value).read_text() if Path(value).is_file() else value
      value = json.loads(text)
    except (OSError, ValueError) as error:
      raise InputError(
        f"select.target_shares={value}: no JSON and no file of it ({error}); give"
        ' {"group": share, ...}, in the config or in a file.'
      ) from error
  number = (int, float)
  if not isinstance(value, Mapping) or not all(
    isinstance(share, number) and not isinstance(share, bool)
    for share in value.values()
  ):
    raise InputError(
      f"select.target_shares is {value!r}; it gives a number for each group's name."
    )
  return {str(name): float(share) for name, share in value.items()}
