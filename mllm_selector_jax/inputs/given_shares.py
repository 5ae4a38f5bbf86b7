"""Reads target shares by group name, from the config or from a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm_selector_jax.types import InputError


def read_shares(value: Any) -> dict[str, float] | None:
  """Read target shares by group name from a dict, a JSON string or a JSON file.

  Raises:
    InputError: The value is none of these.
  """
  if not value:
    return None
  if isinstance(value, str):
    try:
      text = Path(value).read_text() if Path(value).is_file() else value
      value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
      raise InputError(
        f"select.target_shares={value}: neither JSON nor a JSON file ({error}); give"
        ' {"group": share, ...}, in the config or in a file.'
      ) from error
  number = (int, float)
  if not isinstance(value, Mapping) or not all(
    isinstance(share, number) and not isinstance(share, bool)
    for share in value.values()
  ):
    raise InputError(
      f"select.target_shares is {value!r}; it must map group names to numbers."
    )
  return {str(name): float(share) for name, share in value.items()}
