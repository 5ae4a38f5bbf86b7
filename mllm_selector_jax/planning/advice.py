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


class Change(NamedTuple):
  """Settings that let a step take less memory.

  Attributes:
    values: By key, as on the command line.
    text: What follows the settings in a message.
  """

  values: dict[str, Any]
  text: str


# LLaVA trains adapters at 2e-4 and the decoder at 2e-5 (scripts/v1_5/finetune*.sh).
LORA_RATE = 10


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
  shape, memory = program.shape, program.memory
  counted = ""
  if program.counted:
    counted = f"; the compiler counts {program.counted:.3g} per device, each loop once"
  lines = [
    describe_need(program, topology),
    f"  {program.steps:,} steps of {shape.rows} rows x {shape.length} tokens, with"
    f" places for {shape.shards * shape.tiles} tiles of images and"
    f" {shape.shards * shape.supervised:,} targets; compiled"
    f" {'before' if program.kept else 'now'} in {program.seconds:.0f} s",
    f"  FLOPs per step: {model_flops:.3g} of the model, {program.executed:.3g} executed"
    f" (with padding, recomputation and masked attention){counted}",
  ]
  if memory is not None:
    amounts = [f"{kind} {size(count)}" for kind, count in program.collectives.items()]
    lines.append(f"  communication per step and device: {', '.join(amounts) or 'none'}")
  return "\n".join(lines + suggest(program, topology, settings))


def describe_need(program: Program, topology: Topology) -> str:
  """Describe in a line what a step needs, and whether it fits."""
  memory, needed = program.memory, needed_bytes(program)
  fits = "fits" if does_fit(program, topology) else "does NOT fit"
  amount = "more than" if needed is None else f"{size(needed)} of"
  if memory is None:
    parts = f"arguments {size(program.arguments)}; {program.refused}"
  else:
    parts = (
      f"arguments {size(memory.arguments)}, temporaries {size(memory.temporaries)},"
      f" outputs {size(memory.outputs)}, code {size(memory.code)}"
    )
  return (
    f"{program.title}: {'' if topology.exact else 'an estimate: '}{fits}: {amount}"
    f" {size(topology.memory)} per device ({parts})"
  )


def suggest(program: Program, topology: Topology, settings: Settings) -> list[str]:
  """List what to change if a step does not fit, the cheapest change first."""
  changes = [
    ", ".join(f"{key}={value}" for key, value in change.values.items()) + change.text
    for change in list_changes(program, topology, settings)
  ]
  full = program.arguments / topology.memory
  if full > 0.5 and not does_fit(program, topology):
    count = math.ceil(math.prod(settings.mesh.values()) * full / 0.5)
    changes.append(f"more devices: {count} hold the arguments in half of their memory")
  return [f"  change: {change}" for change in changes]


def list_changes(
  program: Program, topology: Topology, settings: Settings
) -> list[Change]:
  """List the settings to change if a step does not fit, the cheapest change first.

  Those that leave the result as it is come before those that do not.
  """
  if does_fit(program, topology):
    return []
  ways = settings.mesh["data"] * settings.mesh["fsdp"]
  changes = []
  if settings.mesh["data"] > 1:
    values = {"mesh.data": 1, "mesh.fsdp": ways}
    state = "" if settings.section is None else " and optimizer state"
    changes.append(Change(values, f": parameters{state} sharded over all devices"))
  full = program.arguments / topology.memory
  if settings.section is not None:
    return changes + _list_training_changes(program, topology, settings)
  if program.shape.rows > ways:
    rows = max(ways, program.shape.rows // _find_parts(program, topology))
    changes.append(Change({"score.batch_rows": rows}, ": fewer packed rows per step"))
  elif full < 0.5:
    values = {"score.row_length": program.shape.length // 2}
    changes.append(Change(values, ", if rows are shorter"))
  return changes


def _list_training_changes(
  program: Program, topology: Topology, settings: Settings
) -> list[Change]:
  section, name, changes = settings.section, settings.name, []
  devices = math.prod(settings.mesh.values())
  rows = program.shape.rows // program.shape.shards
  if settings.remat != "full":
    values = {"model.remat": "full"}
    changes.append(Change(values, ": only the layers' inputs are kept"))
  if rows > 1 and program.arguments < topology.memory:
    parts = min(_find_parts(program, topology), rows)
    parts = min(section.accumulate * parts, section.batch)
    text = f": {rows} packed rows per device and micro-batch become"
    left = -(-rows * section.accumulate // parts)
    changes.append(Change({f"{name}.accumulate": parts}, f"{text} {left}"))
  if section.first_moment == "float32":
    saved = size(2 * settings.trainable / devices)
    values = {f"{name}.first_moment": "bfloat16"}
    changes.append(Change(values, f": about {saved} less per device"))
  if not section.lora.rank and section.trainable != "projector":
    saved = size(8 * settings.trainable / devices)
    every = section.trainable == "all"
    rate = float(f"{LORA_RATE * section.learning_rate:.6g}")
    values = {f"{name}.lora.rank": 128} | (
      {f"{name}.lora.modules": "all"} if every else {}
    )
    values[f"{name}.learning_rate"] = rate
    part = "model" if every else "decoder"
    text = f": no moments and gradients of the {part}, at least {saved} less per device"
    changes.append(Change(values, text))
  return changes


def _find_parts(program: Program, topology: Topology) -> int:
  """Return the power of two by which temporaries have to shrink, 2 at the least."""
  needed = needed_bytes(program)
  room = topology.memory - program.arguments
  if needed is None or room <= 0:
    return 2
  ratio = (needed - program.arguments) / room
  return 2 ** max(1, math.ceil(math.log2(max(ratio, 1.0))))
