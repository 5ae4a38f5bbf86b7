"""Counts what a program executes: FLOPs in its jaxpr, bytes of collectives in its HLO.

The compiler's own cost analysis counts the body of a loop only once. In this package
layers, chunks of the head and micro-batches are loops.
"""

import math
import re
from typing import Any

import jax
import jax.extend.core

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_BYTES = {
  "pred": 1,
  "s4": 0.5,
  "u4": 0.5,
  "s8": 1,
  "u8": 1,
  "f8e4m3fn": 1,
  "f8e5m2": 1,
  "s16": 2,
  "u16": 2,
  "bf16": 2,
  "f16": 2,
  "s32": 4,
  "u32": 4,
  "f32": 4,
  "s64": 8,
  "u64": 8,
  "f64": 8,
}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\((.*?)\), ")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# The TPU compiler's name for a fused all-reduce whose result stays sharded.
_SCATTERED = "all-reduce-scatter"


def count_flops(jaxpr: Any) -> float:
  """Count the FLOPs of all matrix products of a program, on all devices.

  The body of a loop counts as often as it runs, or once if only a batch decides how
  often that is, as in attention by blocks; and a conditional as its most expensive
  branch. Blocks that a Pallas kernel masks or skips count too.

  Args:
    jaxpr: A `Jaxpr` or a `ClosedJaxpr`.
  """
  jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
  total = 0.0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
      (contracted, _), _ = params["dimension_numbers"]
      lhs = equation.invars[0].aval.shape
      inner = math.prod(lhs[axis] for axis in contracted)
      total += 2 * math.prod(equation.outvars[0].aval.shape) * inner
      continue
    if name == "pallas_call":
      grid = math.prod(params["grid_mapping"].grid)
      total += grid * count_flops(params["jaxpr"])
      continue
    inner = [count_flops(body) for body in _inner_jaxprs(params)]
    if name == "cond":
      total += max(inner, default=0.0)
    elif name == "scan":
      total += params["length"] * sum(inner)
    elif name == "shard_map":
      total += params["mesh"].size * sum(inner)
    else:
      total += sum(inner)
  return total


def _inner_jaxprs(params: dict[str, Any]):
  kinds = (jax.extend.core.ClosedJaxpr, jax.extend.core.Jaxpr)
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if isinstance(item, kinds):
        yield item


def count_collectives(text: str) -> dict[str, int]:
  """Count the bytes of each kind of collective in one run, per device.

  A collective counts as its larger side: the result of an all-gather, the operand of
  a reduce-scatter. A collective in a loop counts as often as the loop runs, or once if
  the HLO does not show how often that is.

  Args:
    text: HLO of a compiled program.
  """
  bodies, entry = _split(text)
  times = _count_runs(bodies, entry)
  totals = dict.fromkeys(KINDS, 0.0)
  for name, lines in bodies.items():
    sizes = {
      match[1]: _bytes(match[2])
      for line in lines
      if (match := re.match(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ", line))
    }
    for line in lines:
      if not (match := _COLLECTIVE.search(line)):
        continue
      result, kind, started, operands = match.groups()
      operand_bytes = sum(
        sizes.get(operand, 0) for operand in re.findall(r"%([\w.\-]+)", operands)
      )
      # The result of an asynchronous start also holds the operands, and flags.
      result_bytes = _bytes(result) - (operand_bytes if started else 0)
      if name.startswith(_SCATTERED):
        kind = "reduce-scatter"
      totals[kind] += times.get(name, 0) * max(operand_bytes, result_bytes)
  return {kind: int(size) for kind, size in totals.items() if size}


def _bytes(kinds: str) -> float:
  """Return the bytes of an array, or of all arrays of a tuple, from its HLO type."""
  return sum(
    _BYTES.get(kind, 0) * math.prod(int(n) for n in sides.split(",") if n)
    for kind, sides in _ARRAY.findall(kinds)
  )


def _split(text: str) -> tuple[dict[str, list[str]], str]:
  """Return the lines of each computation, and the name of the entry computation."""
  bodies: dict[str, list[str]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if line.startswith((" ", "\t")):
      if current is not None:
        current.append(line.strip())
    elif match := _HEADER.match(line):
      current = bodies.setdefault(match[2], [])
      entry = match[2] if match[1] else entry
  return bodies, entry


def _count_runs(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
  """Count how often each computation runs."""
  times: dict[str, int] = {}

  def visit(name: str, count: int) -> None:
    times[name] = times.get(name, 0) + count
    for line in bodies.get(name, ()):
      loops = _count_loops(line, bodies) if " while(" in line else 1
      called = _CALLED.findall(line)
      for branches in _BRANCHES.findall(line):
        called += [branch.strip().lstrip("%") for branch in branches.split(",")]
      for inner in called:
        visit(inner, count * loops)

  visit(entry, 1)
  return times


def _count_loops(line: str, bodies: dict[str, list[str]]) -> int:
  """Return the trip count of a loop from 0 to a constant; 1 for any other loop."""
  if trip_count := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
    return int(trip_count[1])
  condition = re.search(r"condition=%?([\w.\-]+)", line)
  lines = bodies.get(condition[1], []) if condition else []
  constants = (re.search(r" constant\((\d+)\)", text) for text in lines)
  limits = [int(match[1]) for match in constants if match]
  rising = any("direction=LT" in text for text in lines)
  return limits[0] if rising and len(limits) == 1 else 1
