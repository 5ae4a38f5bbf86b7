"""Finds the settings with which all steps of a run fit some devices."""

import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.planning import advice
from mllm_selector_jax.planning.device_kinds import GPU_SHARE, list_sizes
from mllm_selector_jax.planning.run_steps import (
  CompiledStep,
  describe_devices,
  make_mesh,
  read_steps,
  shares_step,
)
from mllm_selector_jax.planning.topology import Topology, parse
from mllm_selector_jax.runs.context import Run

MOST = 8  # times that settings are changed


class Fit(NamedTuple):
  """Steps compiled for some devices, with the settings that were changed for that.

  Attributes:
    topology: The devices.
    changes: Settings by key.
    steps: By name, as compiled last.
  """

  topology: Topology
  changes: dict[str, Any]
  steps: dict[str, CompiledStep]

  @property
  def fits(self) -> bool:
    """Whether all steps fit."""
    return all(
      advice.does_fit(step.program, self.topology) for step in self.steps.values()
    )


def find_fit(
  run: Run,
  config: MllmConfig,
  pool: Any,
  topology: Topology,
  say: Callable[[str], None],
) -> Fit:
  """Compile the steps of a run, and change settings until they fit.

  Args:
    run: The invocation.
    config: Config of the base model, with the dtype of the computation.
    pool: The checked pool, or one with its columns.
    topology: The devices.
    say: Told what each step needs.
  """
  fit = Fit(topology, {}, {})
  mesh = make_mesh(topology, run.cfg.mesh.to_dict(), config)
  say(describe_devices(topology, mesh, config.dtype))
  waiting: Sequence[str] = ()
  for attempt in range(MOST + 1):
    current = run.at(settings=fit.changes) if fit.changes else run
    steps = read_steps(current, config, pool)
    mesh = make_mesh(topology, current.cfg.mesh.to_dict(), config)
    for name in steps.names if attempt == 0 else waiting:
      found = steps.compile(name, mesh, topology.platform)
      fit.steps[name] = found
      program, flops, settings = found
      if attempt == 0:
        say(advice.describe(program, topology, flops, settings))
      else:
        say(f"  with these changes {advice.describe_need(program, topology)}")
    if attempt == 0 and shares_step(run):
      say("seed: the same step as for tune.")
    change = _find_change(fit)
    if change is None or attempt == MOST:
      return fit
    name, values = change
    if name == "tune" and shares_step(current):
      values |= {_move(key): value for key, value in values.items()}
    say("Changing " + ", ".join(f"{key}={value}" for key, value in values.items()))
    fit.changes.update(values)
    waiting = _list_affected(values, name, list(fit.steps))
  return fit


def find_larger(fit: Fit) -> str | None:
  """Name the least devices of the kind that hold all arguments in half their memory.

  None if there are no more of them.
  """
  generation, _ = parse(fit.topology.name)
  devices = len(fit.topology.devices)
  bytes_in_all = devices * max(step.program.arguments for step in fit.steps.values())
  for name, count in list_sizes(generation):
    if count > devices and bytes_in_all / count <= fit.topology.memory / 2:
      return name
  return None


def format_command(
  arguments: Sequence[str], changes: dict[str, Any], platform: str
) -> str:
  """Write the command line of the run, with changed settings.

  Args:
    arguments: The command line of `plan`, the program's name first; one without
      --config gives a command with the changes alone.
    changes: Settings by key.
    platform: Platform of the devices.
  """
  words = ["mllm-selector"]
  flags = _split_flags(arguments[1:])
  if any(key == "config" for key, _ in flags):
    for key, parts in flags:
      key = key.removeprefix("config.")
      if not key.startswith("plan.") and key not in changes:
        words += parts
  words += [f"--config.{key}={value}" for key, value in changes.items()]
  fraction = f"XLA_PYTHON_CLIENT_MEM_FRACTION={GPU_SHARE:g} "
  return (fraction if platform == "gpu" else "") + shlex.join(words)


def _split_flags(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
  """Return the flags' keys, each with its words; a value may be a word of its own."""
  flags: list[tuple[str, list[str]]] = []
  for before, word in zip(["", *arguments], arguments, strict=False):
    if word.startswith("-"):
      flags.append((word.lstrip("-").split("=")[0], [word]))
    elif before.startswith("-") and "=" not in before:
      flags[-1][1].append(word)
  return flags


def _find_change(fit: Fit) -> tuple[str, dict[str, Any]] | None:
  """Return the cheapest change for the first step that does not fit, and its name."""
  for name, step in fit.steps.items():
    changes = advice.list_changes(step.program, fit.topology, step.settings)
    if changes and "score.row_length" not in changes[0].values:
      return name, dict(changes[0].values)
    if not advice.does_fit(step.program, fit.topology):
      return None
  return None


def _move(key: str) -> str:
  """Return the key of the seed's recipe for one of the tune's."""
  section, _, rest = key.partition(".")
  return f"seed.{rest}" if section == "tune" else key


def _list_affected(
  values: dict[str, Any], name: str, names: Sequence[str]
) -> list[str]:
  """List the steps whose program a change of settings may change."""
  if any(key.startswith("mesh.") for key in values):
    return list(names)
  if any(key.startswith("model.") for key in values):
    return [other for other in names if other != "score"]
  return [name]
