"""Hugging Face directories of vision-language models: read, checked, and written.

Nothing here unpickles, runs code that comes with a model, or touches the
network for a directory; transformers is imported inside the functions.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Tokenizers, configurations and image processors are all that is used of
# transformers; its advice that torch is missing would only mislead.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from mllm_selector_jax.models.huggingface.model_config import read_config
from mllm_selector_jax.models.huggingface.model_parts import list_folders
from mllm_selector_jax.models.huggingface.processor import (
  read_family_name,
  read_image_tokens,
  read_processor,
)
from mllm_selector_jax.models.huggingface.remarks import list_remarks
from mllm_selector_jax.models.huggingface.source import find_model
from mllm_selector_jax.models.huggingface.stops import read_ends

if TYPE_CHECKING:
  from mllm_selector_jax.models.huggingface.adapter import write_adapter
  from mllm_selector_jax.models.huggingface.join_parts import assemble
  from mllm_selector_jax.models.huggingface.reader import check_weights, read_params
  from mllm_selector_jax.models.huggingface.writer import write_fresh, write_model

__all__ = [
  "assemble",
  "check_weights",
  "find_model",
  "list_folders",
  "list_remarks",
  "read_config",
  "read_ends",
  "read_family_name",
  "read_image_tokens",
  "read_params",
  "read_processor",
  "write_adapter",
  "write_fresh",
  "write_model",
]

# Functions that need jax, by the module that holds them, which is imported when they
# are asked for. The others read configs and tokenizers, for which jax is not needed.
_NEED_JAX = {
  "assemble": "join_parts",
  "check_weights": "reader",
  "read_params": "reader",
  "write_adapter": "adapter",
  "write_fresh": "writer",
  "write_model": "writer",
}


def __getattr__(name: str) -> Any:
  if name not in _NEED_JAX:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_NEED_JAX[name]}"), name)
