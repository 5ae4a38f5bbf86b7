"""What a compiled step takes, in words, and what to change where it does not fit."""

import math
from typing import Any, NamedTuple

from mllm_selector_jax.planning.programs import Program
from mllm_selector_jax.planning.topology import Topology


class Settings(NamedTuple):
  """What can be changed about a step.

  Attributes:
    mesh: devices along each axis.
    remat: the policy.
    section: the recipe of a training; None for scoring.
    name: of its section of the config.
    trainable: parameters that it trains.
  """

  mesh: dict[str, int]
  remat: str
  section: Any = None
  name: str = "score"
  trainable: int = 0


def needed_bytes(program: Program) -> float | None:
  """Of one device; None where the compiler gave up without a figure."""
  return program.needed if program.memory is None else program.memory.total


def does_fit(program: Program, topology: Topology) -> bool:
  """Whether a device holds the step."""
  return program.memory is not None and program.memory.total <= topology.memory


def size(count: float) -> str:
  """Bytes as people say them."""
  if count >= 2**30:
    return f"{count / 2**30:.1f} GiB"
  return f"{count / 2**20:.1f} MiB"


def describe(
  program: Program, topology: Topology, model_flops: float, settings: Settings
) -> str:
  """What a step takes, and what to change where it does not fit.

  Args:
    program: the step.
    topology: the devices.
    model_flops: of the step, as MFU counts them.
    settings: what can be changed.
  """
  shape, memory, needed = program.shape, program.memory, needed_bytes(program)
  fits = "fits" if does_fit(program, topology) else "does NOT fit"
  amount = "more than" if needed is None else f"{size(needed)} of"
  if memory is None:
    parts = f"arguments {size(program.arguments)}; {program.refused}"
  else:
    parts = (
      f"arguments {size(memory.arguments)}, temporaries {size(memory.temporaries)},"
      f" outputs {size(memory.outputs)}, code {size(memory.code)}"
    )
  counted = ""
  if program.counted:
    counted = f"; the compiler counts {program.counted:.3g} a device, loops once"
  lines = [
    f"{program.title}: {'' if topology.exact else 'an estimate: '}{fits}: {amount}"
    f" {size(topology.memory)} a device ({parts})",
    f"  {program.steps:,} steps of {shape.rows} rows x {shape.length} tokens, with"
    f" places for {shape.shards * shape.tiles} tiles of images and"
    f" {shape.shards * shape.supervised:,} targets; compiled in"
    f" {program.seconds:.0f} s",
    f"  FLOPs a step: {model_flops:.3g} of the model, {program.executed:.3g} executed"
    f" (with padding, recomputation and masked attention){counted}",
  ]
  if memory is not None:
    each = [f"{kind} {size(count)}" for kind, count in program.collectives.items()]
    lines.append(f"  communication a step and device: {', '.join(each) or 'none'}")
  return "\n".join(lines + suggest(program, topology, settings))


def suggest(program: Program, topology: Topology, settings: Settings) -> list[str]:
  """What to change where a step does not fit, the cheapest first."""
  if does_fit(program, topology):
    return []
  devices = math.prod(settings.mesh.values())
  ways = settings.mesh["data"] * settings.mesh["fsdp"]
  section, found = settings.section, []
  full = program.arguments / topology.memory
  if settings.mesh["data"] > 1:
    found.append(
      f"mesh.data=1, mesh.fsdp={ways}: parameters"
      f"{'' if section is None else ' and optimizer state'} cut over all devices"
    )
  if section is None:
    if program.shape.rows > ways:
      found.append(f"score.batch_rows={max(ways, program.shape.rows // 2)}")
    elif full < 0.5:
      found.append(f"score.row_length={program.shape.length // 2}, if rows are shorter")
  else:
    rows = program.shape.rows // program.shape.shards
    if settings.remat != "full":
      found.append("model.remat=full: only the layers' inputs are kept")
    if rows > 1 and full < 1:
      parts = min(section.accumulate * 2, section.accumulate * rows)
      found.append(
        f"{settings.name}.accumulate={parts}: {rows} packed rows a device and part"
        f" become {-(-rows // 2)}"
      )
    if section.first_moment == "float32":
      saved = size(2 * settings.trainable / devices)
      found.append(
        f"{settings.name}.first_moment=bfloat16: about {saved} a device less"
      )
    if not section.lora.rank and section.trainable == "decoder":
      saved = size(8 * settings.trainable / devices)
      found.append(
        f"{settings.name}.lora.rank=128: no moments and gradients of the decoder,"
        f" at least {saved} a device less"
      )
  if full > 0.5:
    wanted = math.ceil(devices * full / 0.5)
    found.append(f"more devices: {wanted} hold the arguments in half of their memory")
  return [f"  change: {one}" for one in found]
