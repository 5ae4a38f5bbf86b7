"""What a model directory says of itself that is not followed, in words."""

import os

from mllm_selector_jax.models.huggingface.model_families import count_image_tokens
from mllm_selector_jax.models.huggingface.model_parts import find_parts


def list_remarks(path: str | os.PathLike) -> list[str]:
  """What is read otherwise than the directory's files have it, one sentence each.

  Args:
    path: a directory that `read_config` reads, or a hub name.
  """
  parts = find_parts(path)
  stated, given = parts.stated_image_tokens, count_image_tokens(parts.config)
  if stated in (None, given):
    return []
  return [
    f"image_seq_length of {parts.decoder / 'config.json'} is {stated!r}, but the vision"
    f" tower gives {given} tokens an image; {given} is used, and written to exports."
  ]
