"""Imports the writer of TensorBoard's files, which is an optional package."""

from typing import Any

from mllm_selector_jax.types import InputError


def import_board() -> Any:
  """Import the package that writes TensorBoard's files.

  Raises:
    InputError: The package is not installed.
  """
  try:
    import tensorboardX
  except ImportError as error:
    raise InputError(
      "log.tensorboard=True needs tensorboardX: pip install"
      " 'mllm_selector_jax[tensorboard]', or leave it out."
    ) from error
  return tensorboardX
