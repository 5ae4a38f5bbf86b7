"""Refuses links in a model's folder that lead to files of other things than models.

A model's small files are copied to what is tuned from it, and may be published with
it. A repository could hold a link from one of them to a file of the user's own.
"""

import json
from pathlib import Path

from mllm_selector_jax.types import InputError

_COPIED = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*")
_MOST_BYTES = 1 << 20  # of a config.json


def refuse_foreign_links(folder: Path) -> None:
  """Refuses a folder with a link that leaves it, other than to another model's file.

  Links into the hub's cache and into the folder of another model are followed, since
  people share files among models so.

  Raises:
    InputError: where a link leads.
  """
  inside = folder.resolve()
  blobs = inside.parent.parent / "blobs"  # of the hub's cache
  for pattern in _COPIED:
    for path in folder.glob(pattern):
      target = path.resolve()
      if target.parent in (inside, blobs) or _is_model(target.parent):
        continue
      raise InputError(
        f"{path} is a link to {target}, which is outside of the model's folder and in"
        " no other model's, and would be copied to what is tuned from it. Remove it, or"
        " put the file itself in its place."
      )


def _is_model(folder: Path) -> bool:
  path = folder / "config.json"
  try:
    with path.open("rb") as file:
      return "model_type" in json.loads(file.read(_MOST_BYTES))
  except (OSError, ValueError, RecursionError, TypeError):
    return False
