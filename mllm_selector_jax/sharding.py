"""Defines the mesh, and the rules that map logical axes of arrays to mesh axes.

Models name the logical axes of their arrays ("batch", "embed", "heads"), and only the
rules here say which mesh axis shards each of them. Without a mesh in context, nothing
is constrained, so that the same code runs on one CPU device.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.mesh_shape import check_shape
from mllm_selector_jax.types import InputError

MESH_AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))  # the leading axis of every batch


@dataclasses.dataclass(frozen=True)
class Rules:
  """Maps each logical axis to the mesh axis or axes that shard it; None for none."""

  batch: tuple[str, ...] | str | None = ("data", "fsdp")
  length: str | None = None
  width: str | None = None
  layers: str | None = None
  vocab: str | None = "tensor"
  embed: str | None = "fsdp"
  heads: str | None = "tensor"
  kv_heads: str | None = "tensor"
  mlp: str | None = "tensor"
  experts: str | None = "tensor"
  patch: str | None = None
  rank: str | None = "fsdp"

  def spec(self, logical: Sequence[str | None]) -> PartitionSpec:
    """Returns the partition spec of an array whose axes have these logical names."""
    return PartitionSpec(*(name and getattr(self, name) for name in logical))


_DEFAULT = Rules()
_RULES = contextvars.ContextVar("rules", default=_DEFAULT)


def make_mesh(
  data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None
) -> Mesh:
  """Makes a mesh of the axes `MESH_AXES`.

  Args:
    data, fsdp, tensor: the sizes of the axes. One may be -1, which stands for all
      remaining devices.
    devices: the devices; None for all.

  Raises:
    InputError: the product of the sizes is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  check_shape(data, fsdp, tensor)
  shape = [data, fsdp, tensor]
  rest = math.prod(size for size in shape if size != -1)
  shape = [len(devices) // rest if size == -1 else size for size in shape]
  if math.prod(shape) != len(devices):
    raise InputError(
      f"mesh: data={data}, fsdp={fsdp}, tensor={tensor} does not fill the"
      f" {len(devices)} devices found; their product must equal that number."
    )
  return jax.make_mesh(
    tuple(shape), MESH_AXES, (AxisType.Auto,) * len(MESH_AXES), devices=devices
  )


def check_heads(mesh: Mesh, **heads: int) -> None:
  """Refuses a mesh whose tensor axis does not divide the numbers of attention heads.

  Args:
    mesh: the mesh.
    **heads: the numbers of heads, by their names.

  Raises:
    InputError: a number of heads is not a multiple of the axis.
  """
  ways = mesh.shape["tensor"]
  if undivided := [f"{count} {name}" for name, count in heads.items() if count % ways]:
    divisor = math.gcd(*heads.values())
    allowed = [size for size in range(1, divisor + 1) if divisor % size == 0]
    raise InputError(
      f"mesh: tensor={ways} does not divide the model's heads"
      f" ({', '.join(undivided).replace('_', ' ')}); it may be"
      f" {', '.join(map(str, allowed))}. Use more data or fsdp instead."
    )


@contextlib.contextmanager
def use(mesh: Mesh, rules: Rules | None = None) -> Iterator[Mesh]:
  """Sets the mesh and the rules that `constrain` uses inside the context."""
  token = _RULES.set(rules or Rules())
  try:
    with jax.set_mesh(mesh):
      yield mesh
  finally:
    _RULES.reset(token)


def platform() -> str:
  """Returns the platform of the mesh in context, or else the default backend.

  They differ if a program is compiled for devices that are not present.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def constrain(x: jax.Array, logical: Sequence[str | None]) -> jax.Array:
  """Constrains an activation to the sharding of its logical axes, if there is a mesh.

  Args:
    x: the activation.
    logical: the logical name of each axis; None for an axis that is not sharded.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, _RULES.get().spec(logical))


def _ways(mesh: Any, axes: tuple[str, ...] | str | None) -> int:
  """Returns the number of shards into which mesh axes divide a side of an array."""
  names = (axes,) if isinstance(axes, str) else (axes or ())
  return math.prod(mesh.shape[axis] for axis in names)


def map_shards(
  fn: Callable[..., Any],
  arrays: Sequence[Array],
  axes: Sequence[Sequence[str | None]],
  out: Sequence[Any],
) -> Any:
  """Calls `fn` on each device's shards of the arrays; without a mesh, on the arrays.

  A logical axis is not sharded if the mesh does not divide it in every array.

  Args:
    fn: a function of the arrays; its computation must not cross shards.
    arrays: the arguments of `fn`.
    axes: the logical axes of each array.
    out: the logical axes of the result; of a tuple of results, a tuple of theirs.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return fn(*arrays)
  rules = _RULES.get()

  unsharded = {
    name
    for array, logical in zip(arrays, axes, strict=True)
    for side, name in zip(array.shape, logical, strict=True)
    if side % _ways(mesh, rules.spec([name])[0])
  }

  def spec(logical):
    return rules.spec([None if name in unsharded else name for name in logical])

  several = bool(out) and isinstance(out[0], tuple)
  out_specs = tuple(map(spec, out)) if several else spec(out)
  mapped = jax.shard_map(
    fn, in_specs=tuple(map(spec, axes)), out_specs=out_specs, check_vma=False
  )
  return mapped(*arrays)


def map_row_shards(
  fn: Callable[..., Any], rows: Sequence[Array], replicated: Sequence[Array]
) -> Any:
  """Calls `fn(*rows, *replicated)` on each device's rows; without a mesh, on all rows.

  The replicated arrays are gathered once, and their gradients are summed over the
  devices once. If `fn` has loops, the compiler by itself would do both in every
  iteration. Sharding over the tensor axis is left to the compiler.

  Args:
    fn: returns a tree of arrays with a leading axis of rows. The result of a row must
      not depend on other rows.
    rows: arrays whose leading axis is that of a batch's rows or shards of rows.
    replicated: arrays that every row needs.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or any(len(x) % _ways(mesh, ROWS[0]) for x in rows):
    return fn(*rows, *replicated)
  mapped = jax.shard_map(
    fn,
    in_specs=(*(ROWS for _ in rows), *(PartitionSpec() for _ in replicated)),
    out_specs=ROWS,
    axis_names=set(ROWS[0]),
    check_vma=False,
  )
  return mapped(*rows, *replicated)


def parameter_shardings(tree: Any, axes: Any, mesh: Mesh, rules: Rules | None = None):
  """Returns the shardings of parameters by their logical axes.

  A side of an array that the mesh axis does not divide is not sharded, so that small
  arrays do not fail.

  Args:
    tree: the parameters, or their shapes.
    axes: the same tree, with a tuple of logical names (or None) for each array.
    mesh: the mesh.
    rules: the rules from logical to mesh axes; None for the default rules.

  Returns:
    The same tree of `NamedSharding`.
  """
  rules = rules or Rules()

  def sharding(array, logical):
    spec = []
    for side, name in zip(array.shape, rules.spec(logical), strict=True):
      spec.append(name if side % _ways(mesh, name) == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(sharding, tree, axes)


def row_ways(mesh: Mesh | AbstractMesh) -> int:
  """Returns the number of shards over which the rows of a batch are distributed."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def put_rows(tree: Any, mesh: Mesh) -> Any:
  """Makes global arrays from the rows of each process.

  Args:
    tree: a tree of arrays whose leading axis is that of this process's rows. Their
      number must be a multiple of the number of this process's shards.
    mesh: the mesh.

  Returns:
    The same tree of global arrays over the rows of all processes.
  """
  sharding = NamedSharding(mesh, ROWS)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
  )
