"""Runs jax on the host's CPU in float64, whatever mesh is in context."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from mllm_selector_jax.types import InputError


@contextlib.contextmanager
def on_host() -> Iterator[None]:
  """Enables float64 and replaces the mesh in context by one CPU device.

  Raises:
    InputError: JAX_PLATFORMS leaves the CPU out.
  """
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError as error:
    raise InputError(
      "Selecting needs JAX's CPU backend, which JAX_PLATFORMS leaves out; add cpu"
      " to it, after the accelerator."
    ) from error
  mesh = Mesh(np.array([device]), ("host",), axis_types=(AxisType.Auto,))
  with jax.enable_x64(True), jax.set_mesh(mesh):
    yield
