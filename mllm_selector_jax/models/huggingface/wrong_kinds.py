"""Refuses a model's files whose fields have values of another kind than they should.

transformers checks some fields of its configs and processors, and passes on the rest:
a text where a number belongs, or a number where a list belongs.
"""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from mllm_selector_jax.panics import explaining_panics
from mllm_selector_jax.types import InputError

# What reading such a value as the right one leads to.
_RAISED = (
  *(TypeError, ValueError, AttributeError, LookupError, ArithmeticError),
  *(RecursionError, MemoryError),
)


@contextlib.contextmanager
def refusing_wrong_kinds(path: Path) -> Iterator[None]:
  """Raises an InputError in place of what a value of a wrong kind leads to.

  Args:
    path: the model's directory, for the message.

  Raises:
    InputError: as the block raises it, or in place of what it raised.
  """
  try:
    with explaining_panics(f"{path} cannot be read"):
      yield
  except InputError:
    raise
  except _RAISED as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    raise InputError(
      f"{path}: a field of the model's files (config.json, processor_config.json,"
      " preprocessor_config.json or the tokenizer's) has a value of a kind that it"
      f" cannot have ({type(error).__name__}: {str(error)[:200]}; in"
      f" {Path(frame.filename).name}, line {frame.lineno}). Compare them with those of"
      " the model as it was published."
    ) from error
