"""What a program executes: FLOPs from its jaxpr, bytes of collectives from its HLO.

The compiler's own cost analysis takes the body of a loop once; layers, chunks of the
head and micro-batches are loops here.
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
# The TPU compiler names a fused sum whose result stays cut.
_SCATTERED = "all-reduce-scatter"


def count_flops(jaxpr: Any) -> float:
  """FLOPs of all matrix products of a program, on all devices.

  A loop counts as often as it runs, one of several branches as its dearest. Places
  that a kernel masks or skips count too.

  Args:
    jaxpr: closed or open.
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
    inner = [count_flops(found) for found in _inner_jaxprs(params)]
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
    for one in value if isinstance(value, tuple | list) else (value,):
      if isinstance(one, kinds):
        yield one


def count_collectives(text: str) -> dict[str, int]:
  """Bytes that go through each kind of collective in one run, a device.

  Counted is the largest array of a collective: what an all-gather gives, what a
  reduce-scatter takes. Collectives of a loop count as often as it runs; where that
  is not to be seen, once.

  Args:
    text: of a compiled program, as HLO.
  """
  bodies, entry = _split(text)
  times = _count_runs(bodies, entry)
  totals = dict.fromkeys(KINDS, 0.0)
  for name, lines in bodies.items():
    held = {
      found[1]: _bytes(found[2])
      for line in lines
      if (found := re.match(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ", line))
    }
    for line in lines:
      if not (found := _COLLECTIVE.search(line)):
        continue
      result, kind, started, operands = found.groups()
      taken = sum(held.get(one, 0) for one in re.findall(r"%([\w.\-]+)", operands))
      # What starts one gives its operands as well, and flags.
      given = _bytes(result) - (taken if started else 0)
      if name.startswith(_SCATTERED):
        kind = "reduce-scatter"
      totals[kind] += times.get(name, 0) * max(taken, given)
  return {kind: int(size) for kind, size in totals.items() if size}


def _bytes(kinds: str) -> float:
  """Of an array, or of all of a tuple, as HLO writes its type."""
  return sum(
    _BYTES.get(kind, 0) * math.prod(int(n) for n in sides.split(",") if n)
    for kind, sides in _ARRAY.findall(kinds)
  )


def _split(text: str) -> tuple[dict[str, list[str]], str]:
  """Lines of every computation, and which one is the entry."""
  bodies: dict[str, list[str]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if line.startswith((" ", "\t")):
      if current is not None:
        current.append(line.strip())
    elif found := _HEADER.match(line):
      current = bodies.setdefault(found[2], [])
      entry = found[2] if found[1] else entry
  return bodies, entry


def _count_runs(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
  """How often each computation runs."""
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
  """Runs of a loop from 0 up to a constant; 1 where it is of another kind."""
  if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
    return int(known[1])
  condition = re.search(r"condition=%?([\w.\-]+)", line)
  lines = bodies.get(condition[1], []) if condition else []
  limits = [
    int(found[1]) for one in lines if (found := re.search(r" constant\((\d+)\)", one))
  ]
  rising = any("direction=LT" in one for one in lines)
  return limits[0] if rising and len(limits) == 1 else 1
