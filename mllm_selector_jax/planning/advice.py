"""Describes what a compiled step needs, and what to change if it does not fit."""

import math
from typing import Any, NamedTuple

from mllm_selector_jax.planning.programs import Program
from mllm_selector_jax.planning.topology import Topology


class Settings(NamedTuple):
  """The settings of a step that advice may change.

  Attributes:
    mesh: Number of devices along each mesh axis.
    remat: Rematerialisation policy, as in `model.remat`.
    section: Training section of the config; None for scoring.
    name: Name of that section.
    trainable: Number of parameters that the training changes.
  """

  mesh: dict[str, int]
  remat: str
  section: Any = None
  name: str = "score"
  trainable: int = 0


def needed_bytes(program: Program) -> float | None:
  """Return the bytes that a step needs on one device.

  None means that the compiler failed for lack of memory and gave no figure.
  """
  return program.needed if program.memory is None else program.memory.total


def does_fit(program: Program, topology: Topology) -> bool:
  """Say whether the step fits into the memory of a device."""
  return program.memory is not None and program.memory.total <= topology.memory


def size(count: float) -> str:
  """Format a number of bytes in GiB or MiB."""
  if count >= 2**30:
    return f"{count / 2**30:.1f} GiB"
  return f"{count / 2**20:.1f} MiB"


def describe(
  program: Program, topology: Topology, model_flops: float, settings: Settings
) -> str:
  """Describe what a step needs, and what to change if it does not fit.

  Args:
    program: The compiled step.
    topology: The devices.
    model_flops: Model FLOPs of the step, as in MFU.
    settings: The settings that advice may change.
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
    counted = f"; the compiler counts {program.counted:.3g} per device, each loop once"
  lines = [
    f"{program.title}: {'' if topology.exact else 'an estimate: '}{fits}: {amount}"
    f" {size(topology.memory)} per device ({parts})",
    f"  {program.steps:,} steps of {shape.rows} rows x {shape.length} tokens, with"
    f" places for {shape.shards * shape.tiles} tiles of images and"
    f" {shape.shards * shape.supervised:,} targets; compiled in"
    f" {program.seconds:.0f} s",
    f"  FLOPs per step: {model_flops:.3g} of the model, {program.executed:.3g} executed"
    f" (with padding, recomputation and masked attention){counted}",
  ]
  if memory is not None:
    amounts = [f"{kind} {size(count)}" for kind, count in program.collectives.items()]
    lines.append(f"  communication per step and device: {', '.join(amounts) or 'none'}")
  return "\n".join(lines + suggest(program, topology, settings))


def suggest(program: Program, topology: Topology, settings: Settings) -> list[str]:
  """List what to change if a step does not fit, the cheapest change first."""
  if does_fit(program, topology):
    return []
  devices = math.prod(settings.mesh.values())
  ways = settings.mesh["data"] * settings.mesh["fsdp"]
  section, changes = settings.section, []
  full = program.arguments / topology.memory
  if settings.mesh["data"] > 1:
    changes.append(
      f"mesh.data=1, mesh.fsdp={ways}: parameters"
      f"{'' if section is None else ' and optimizer state'} sharded over all devices"
    )
  if section is None:
    if program.shape.rows > ways:
      changes.append(f"score.batch_rows={max(ways, program.shape.rows // 2)}")
    elif full < 0.5:
      changes.append(
        f"score.row_length={program.shape.length // 2}, if rows are shorter"
      )
  else:
    rows = program.shape.rows // program.shape.shards
    if settings.remat != "full":
      changes.append("model.remat=full: only the layers' inputs are kept")
    if rows > 1 and full < 1:
      parts = min(section.accumulate * 2, section.accumulate * rows)
      changes.append(
        f"{settings.name}.accumulate={parts}: {rows} packed rows per device and"
        f" micro-batch become {-(-rows // 2)}"
      )
    if section.first_moment == "float32":
      saved = size(2 * settings.trainable / devices)
      changes.append(
        f"{settings.name}.first_moment=bfloat16: about {saved} less per device"
      )
    if not section.lora.rank and section.trainable != "projector":
      saved = size(8 * settings.trainable / devices)
      every = section.trainable == "all"
      modules = f", {settings.name}.lora.modules=all" if every else ""
      part = "model" if every else "decoder"
      changes.append(
        f"{settings.name}.lora.rank=128{modules}: no moments and gradients of the"
        f" {part}, at least {saved} less per device"
      )
  if full > 0.5:
    count = math.ceil(devices * full / 0.5)
    changes.append(f"more devices: {count} hold the arguments in half of their memory")
  return [f"  change: {change}" for change in changes]
