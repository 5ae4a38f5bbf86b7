"""What a model directory says of itself that is not followed, in words."""

import os

from mllm_selector_jax.models.huggingface.carried_tensors import (
  find_carried,
  list_carried,
)
from mllm_selector_jax.models.huggingface.model_families import (
  count_image_tokens,
  find_family,
)
from mllm_selector_jax.models.huggingface.model_parts import Parts, find_parts


def list_remarks(path: str | os.PathLike) -> list[str]:
  """What is read otherwise than the directory's files have it, one sentence each.

  Args:
    path: a directory that `read_config` reads, or a hub name.
  """
  parts = find_parts(path)
  remarks = []
  stated, given = parts.stated_image_tokens, count_image_tokens(parts.config)
  if stated not in (None, given):
    remarks.append(
      f"image_seq_length of {parts.decoder / 'config.json'} is {stated!r}, but the"
      f" vision tower gives {given} tokens an image; {given} is used, and written to"
      " exports."
    )
  if find_carried(parts.config) is not None:
    remarks.append(_count_carried(parts))
  return remarks


def _count_carried(parts: Parts) -> str:
  """What becomes of the tensors of a part that is not run."""
  found, part = list_carried(parts), find_family(parts.config).carried_part
  if not found:
    return f"its weights have no {part}, and exports have none either."
  total = sum(entry.numbers for entry in found)
  return (
    f"its {part} is not run; exports have its {len(found):,} tensors"
    f" ({total:,} numbers) unchanged."
  )
