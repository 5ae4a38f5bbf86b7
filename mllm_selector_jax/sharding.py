"""The mesh, the rules from logical to mesh axes, and host rows to global arrays.

Models name the axes of what they hold ("batch", "embed", "heads"); only the
rules here know which mesh axis shards each of them. Without a mesh in context
everything is a no-op, so the same code runs on one CPU device.
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
  """From a logical axis to the mesh axis (or axes) that shard it."""

  batch: tuple[str, ...] | str | None = ("data", "fsdp")
  length: str | None = None
  width: str | None = None
  layers: str | None = None
  vocab: str | None = "tensor"
  embed: str | None = "fsdp"
  heads: str | None = "tensor"
  kv_heads: str | None = "tensor"
  mlp: str | None = "tensor"
  patch: str | None = None
  rank: str | None = "fsdp"

  def spec(self, logical: Sequence[str | None]) -> PartitionSpec:
    """The mesh axes of an array whose axes have these logical names."""
    return PartitionSpec(*(name and getattr(self, name) for name in logical))


_DEFAULT = Rules()
_RULES = contextvars.ContextVar("rules", default=_DEFAULT)


def make_mesh(
  data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None
) -> Mesh:
  """A mesh of all devices; one axis may be -1, which takes what is left.

  Raises:
    InputError: the axes do not multiply to the number of devices.
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
  """Refuses a mesh whose tensor axis would cut through attention heads.

  Args:
    mesh: the devices.
    **heads: numbers of heads, by what they are.

  Raises:
    InputError: a number is not a multiple of the axis.
  """
  ways = mesh.shape["tensor"]
  if wrong := [f"{count} {name}" for name, count in heads.items() if count % ways]:
    most = math.gcd(*heads.values())
    fit = [size for size in range(1, most + 1) if most % size == 0]
    raise InputError(
      f"mesh: tensor={ways} does not divide the model's heads"
      f" ({', '.join(wrong).replace('_', ' ')}); it may be"
      f" {', '.join(map(str, fit))}. Take more data or fsdp instead."
    )


@contextlib.contextmanager
def use(mesh: Mesh, rules: Rules | None = None) -> Iterator[Mesh]:
  """Puts the mesh and the rules in context for `constrain`."""
  token = _RULES.set(rules or Rules())
  try:
    with jax.set_mesh(mesh):
      yield mesh
  finally:
    _RULES.reset(token)


def platform() -> str:
  """What the program at hand is made for: the mesh's platform, else this process's.

  They differ where a program is compiled for devices that are not there.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def constrain(x: jax.Array, logical: Sequence[str | None]) -> jax.Array:
  """Pins an activation to the rules' sharding; nothing without a mesh."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, _RULES.get().spec(logical))


def _ways(mesh: Any, axes: tuple[str, ...] | str | None) -> int:
  """Into how many parts those mesh axes cut an array's side."""
  names = (axes,) if isinstance(axes, str) else (axes or ())
  return math.prod(mesh.shape[axis] for axis in names)


def map_shards(
  fn: Callable[..., jax.Array],
  arrays: Sequence[Array],
  axes: Sequence[Sequence[str | None]],
  out: Sequence[str | None],
) -> jax.Array:
  """`fn` of the arrays, on each device's own part; at once without a mesh.

  An axis is left whole where the devices do not divide it in every array.

  Args:
    fn: what it computes must not cross the parts.
    arrays: its arguments.
    axes: the logical axes of each.
    out: the logical axes of its result.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return fn(*arrays)
  rules = _RULES.get()

  whole = {
    name
    for array, logical in zip(arrays, axes, strict=True)
    for side, name in zip(array.shape, logical, strict=True)
    if side % _ways(mesh, rules.spec([name])[0])
  }

  def spec(logical):
    return rules.spec([None if name in whole else name for name in logical])

  mapped = jax.shard_map(
    fn, in_specs=tuple(map(spec, axes)), out_specs=spec(out), check_vma=False
  )
  return mapped(*arrays)


def map_row_shards(
  fn: Callable[..., Any], rows: Sequence[Array], whole: Sequence[Array]
) -> Any:
  """`fn(*rows, *whole)` on each device's own rows; at once without a mesh.

  What is whole is gathered once, and its gradient summed over the devices once,
  whatever loops `fn` has; the compiler by itself does both in every round. The tensor
  axis stays the compiler's.

  Args:
    fn: gives a tree of arrays over the rows; no row may need another one.
    rows: arrays over the row shards of a batch.
    whole: arrays that every row needs.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or any(len(x) % _ways(mesh, ROWS[0]) for x in rows):
    return fn(*rows, *whole)
  mapped = jax.shard_map(
    fn,
    in_specs=(*(ROWS for _ in rows), *(PartitionSpec() for _ in whole)),
    out_specs=ROWS,
    axis_names=set(ROWS[0]),
    check_vma=False,
  )
  return mapped(*rows, *whole)


def parameter_shardings(tree: Any, axes: Any, mesh: Mesh, rules: Rules | None = None):
  """Shardings of parameters by their logical axes.

  A mesh axis that does not divide an array's side is left out there: small
  arrays stay whole rather than fail.

  Args:
    tree: parameters, or their shapes.
    axes: the same tree with a tuple of logical names (or None) an array.
    mesh: the devices.
    rules: logical to mesh axes.

  Returns:
    The same tree of NamedSharding.
  """
  rules = rules or Rules()

  def sharding(array, logical):
    spec = []
    for side, name in zip(array.shape, rules.spec(logical), strict=True):
      spec.append(name if side % _ways(mesh, name) == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(sharding, tree, axes)


def row_ways(mesh: Mesh | AbstractMesh) -> int:
  """Over how many shards the rows of a batch are spread."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def put_rows(tree: Any, mesh: Mesh) -> Any:
  """Lays the rows of this process out as part of one global array each.

  The number of rows must be a multiple of this process's share of the shards.
  """
  sharding = NamedSharding(mesh, ROWS)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
  )
