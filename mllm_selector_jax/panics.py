"""Makes errors of the panics of libraries that are written in Rust.

A panic reaches Python as an exception that is no `Exception`, so that whatever catches
those would let it through, up to a traceback.
"""

import contextlib
from collections.abc import Iterator

from mllm_selector_jax.types import InputError


@contextlib.contextmanager
def explaining_panics(what: str, remedy: str = "") -> Iterator[None]:
  """Raises an InputError in place of a panic.

  Args:
    what: the beginning of the message, such as "The base's tokenizer fails".
    remedy: a sentence behind it.

  Raises:
    InputError: a library panicked.
  """
  try:
    yield
  except BaseException as error:
    # pyo3 makes the class anew in each library; it cannot be imported.
    if type(error).__name__ != "PanicException":
      raise
    raise InputError(f"{what}: {str(error)[:200]}.{remedy}") from error
