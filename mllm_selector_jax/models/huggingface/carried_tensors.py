"""Tensors of a base that no part of ours is made of, and that exports hold unchanged.

What reads audio in Gemma 4 E2B and E4B: nothing here runs it, and nothing trains it.
"""

import re
from typing import Any

import numpy as np
import safetensors

from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.models.huggingface.model_parts import Parts
from mllm_selector_jax.models.huggingface.tensor_names import canonical_name
from mllm_selector_jax.models.huggingface.weights import Entry, list_files, open_headers

WHOLE = "model."


def find_carried(config: Any) -> re.Pattern | None:
  """The canonical names of what exports of a whole model hold as it is."""
  pattern = find_family(config).find_carried(config)
  return re.compile(pattern) if pattern else None


def list_passed(config: Any) -> list[re.Pattern]:
  """The canonical names of what no part of ours is made of in a whole model."""
  family = find_family(config)
  found = family.find_carried(config), family.find_unread(config)
  return [re.compile(pattern) for pattern in found if pattern]


def list_carried(parts: Parts) -> list[Entry]:
  """The tensors that an export of these parts holds as they are, by name."""
  carried = find_carried(parts.config)
  if carried is None:
    return []
  found = {}
  for path in list_files(parts.decoder):
    for key, header in open_headers(path):
      if carried.search(canonical_name(key)):
        shape, kind = tuple(header.get_shape()), header.get_dtype()
        found[name_carried(key)] = Entry(path, key, shape, kind)
  return [found[name] for name in sorted(found)]


def name_carried(key: str) -> str:
  """The name in an export of a tensor of a file."""
  return key if key.startswith(WHOLE) else WHOLE + key


def read_carried(entry: Entry) -> np.ndarray:
  """A tensor in the type that it is stored in."""
  with safetensors.safe_open(str(entry.file), framework="numpy") as handle:
    return handle.get_tensor(entry.key)
