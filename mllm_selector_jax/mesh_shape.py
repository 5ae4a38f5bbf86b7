"""Checks the shape of a mesh that settings give, without jax and its devices."""

from mllm_selector_jax.types import InputError


def check_shape(data: int, fsdp: int, tensor: int) -> None:
  """Refuses sizes of mesh axes that fit no number of devices.

  Raises:
    InputError: a size is 0 or below -1, or two are -1.
  """
  shape = [data, fsdp, tensor]
  if shape.count(-1) > 1 or any(size == 0 or size < -1 for size in shape):
    raise InputError(
      f"mesh: data={data}, fsdp={fsdp}, tensor={tensor}; each must be positive,"
      " and at most one may be -1 (all remaining devices)."
    )
