"""The command line: `mllm-selector [command] --config=FILE --workdir=DIR`.

And `mllm-selector assemble --decoder=DIR --vision=DIR --out=DIR`, and
`mllm-selector verify --card=DIR`.
"""

import difflib
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from mllm_selector_jax import configs
from mllm_selector_jax.runs import failures, processes
from mllm_selector_jax.runs.memory import keep_freed_memory
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, Stopped

USAGE = """\
mllm-selector [command] --config=FILE --workdir=DIR [--config.section.key=value ...]

  --config   a config file, or the bare name of a shipped one: {configs}
  --workdir  where everything is written
  --force    take a pool whose files changed, and check it again
  --id       rows that explain is asked about, separated by commas: ids, or row=N
  --arm      whose selection explain or export-selection is about: main unless given
  --ids      files of ids, or of records, that measure is asked about, separated by
             commas
  --out      a JSON file that measure writes its figures to

  --coordinator=HOST:PORT --num_processes=N --process_id=I
             one of N processes that make one run: the same command line for all,
             but for I, which counts from 0; the first listens at HOST:PORT
  --coordinator=auto
             the same where a TPU slice, SLURM or Kubernetes tells all three
  --num_devices=N
             fail unless all processes together have N devices

Commands (none means run):
{commands}

Exit status: 0 done, 1 failed, 2 wrong input or configuration, 130 interrupted,
143 stopped by SIGTERM. The same command goes on from what is whole."""


# Flags that are about one command, and which.
READ_BY = {
  "id": ("explain",),
  "arm": ("explain", "export-selection"),
  "ids": ("measure",),
  "out": ("measure",),
}


class Call(NamedTuple):
  """What a command line asks for."""

  command: str
  cfg: Any
  workdir: str
  force: bool
  coordinator: str | None
  num_processes: int | None
  process_id: int | None
  num_devices: int | None
  asked: dict[str, Any]


def main(argv: list[str] | None = None) -> None:
  """Runs one command and leaves with its exit status."""
  processes.leave(run(sys.argv if argv is None else argv))


def run(argv: list[str]) -> int:
  """The exit status of a command line: 0, 1, 2, 130 or 143."""
  keep_freed_memory()
  try:
    if {"--help", "-help", "-h", "help"} & set(argv[1:]):
      print(_usage(argv[1]))
      return 0
    if argv[1:2] == ["assemble"]:
      _assemble(argv)
      return 0
    if argv[1:2] == ["verify"]:
      from mllm_selector_jax.pipeline import card

      print(card.verify(_parse_card(argv), _default_config()))
      return 0
    call = _parse(argv)
    processes.join(call.coordinator, call.num_processes, call.process_id)
    processes.check_devices(call.num_devices)
    # After the command line was read, since it takes seconds to import.
    from mllm_selector_jax.runs.context import open_run

    with open_run(call.cfg, call.workdir, call.force, **call.asked) as current:
      return _carry_out(call.command, current)
  except KeyboardInterrupt:
    print("Interrupted.", file=sys.stderr)
    return 130
  except Exception as error:
    text, status = failures.explain(error, "", None)
    print(f"Error: {text}", file=sys.stderr)
    return status


def _carry_out(command: str, current: Any) -> int:
  """Runs a command; whatever ends it is one message, also in the log."""
  before = signal.signal(signal.SIGTERM, lambda *_: current.stop())
  try:
    from mllm_selector_jax.settings import check_settings

    check_settings(current, command)
    COMMANDS[command](current)
    return 0
  except Stopped as stopped:
    current.say(f"Stopped: {stopped}. The same command goes on from here.")
    return 143
  except KeyboardInterrupt:
    current.say("Interrupted. The same command goes on from what is whole.")
    return 130
  except Exception as error:
    if not failures.is_expected(error):
      current.console.record(traceback.format_exc())
    if processes.is_lost(error) and current.stopped():
      return 143  # the others were stopped, too
    text, status = failures.explain(error, current.stage, current.workdir.path)
    who = processes.name()
    current.console.say(f"Error: {who}: {text}" if who else f"Error: {text}")
    return status
  finally:
    signal.signal(signal.SIGTERM, before)


def _usage(command: str) -> str:
  if command == "assemble":
    from mllm_selector_jax.stages import assemble

    return assemble.__doc__ + flags.FLAGS.module_help(assemble)
  lines = [f"  {name:9} {command.summary}" for name, command in COMMANDS.items()]
  lines.append(
    "  assemble  Makes a base from a decoder, a vision tower and a projector."
  )
  lines.append(
    "  verify    Draws the published selection of --card=DIR again, compares."
  )
  return USAGE.format(commands="\n".join(lines), configs=", ".join(_shipped()))


def _shipped() -> list[str]:
  folder = next(iter(configs.__path__))
  return sorted(
    name[:-3]
    for name in os.listdir(folder)
    if name.endswith(".py") and not name.startswith("_")
  )


def _assemble(argv: list[str]) -> None:
  """The one command that works on models alone, without config and workdir."""
  from mllm_selector_jax.stages import assemble  # defines its flags

  try:
    flags.FLAGS([argv[0], *argv[2:]])
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  assemble.assemble()


def _parse_card(argv: list[str]) -> Path:
  """The folder of `verify`, which needs neither config nor workdir."""
  values = flags.FlagValues()
  folder = flags.DEFINE_string("card", None, "", flag_values=values)
  try:
    rest = values([argv[0], *argv[2:]])[1:]
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  if rest or not folder.value:
    raise InputError("verify needs --card=DIR, a card that export-selection wrote.")
  return Path(folder.value)


def _parse(argv: list[str]) -> Call:
  """Command, config and flags; nothing is kept from an earlier call.

  Raises:
    InputError: a flag, key or value is wrong.
  """
  argv = [_resolve_config(argument) for argument in argv]
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file(
    "config", None, "", flag_values=values, sys_argv=argv
  )
  workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
  force = flags.DEFINE_bool("force", False, "", flag_values=values)
  coordinator = flags.DEFINE_string("coordinator", None, "", flag_values=values)
  num_processes = flags.DEFINE_integer("num_processes", None, "", flag_values=values)
  process_id = flags.DEFINE_integer("process_id", None, "", flag_values=values)
  num_devices = flags.DEFINE_integer("num_devices", None, "", flag_values=values)
  ids = flags.DEFINE_string("id", "", "", flag_values=values)  # may hold commas
  arm = flags.DEFINE_string("arm", None, "", flag_values=values)
  lists = flags.DEFINE_list("ids", [], "", flag_values=values)
  out = flags.DEFINE_string("out", "", "", flag_values=values)
  try:
    rest = values(argv)[1:]
    cfg = config.value
  except Exception as error:  # a config file may raise anything
    raise InputError(_explain(argv, error)) from error
  if cfg is None:
    raise InputError("--config=FILE is needed, for example --config=configs/demo.py.")
  if not hasattr(cfg, "rng_seed"):
    raise InputError("--config names a file whose get_config() gives no full config.")
  if not workdir.value:
    raise InputError("--workdir=DIR is needed: everything is written there.")
  command = rest[0] if rest else "run"
  if command not in COMMANDS or len(rest) > 1:
    raise InputError(
      f"{' '.join(rest)!r} is not a command; there are {', '.join(COMMANDS)}."
    )
  _refuse_unread(command, [f.name for f in (ids, arm, lists, out) if f.value])
  return Call(
    command,
    cfg,
    workdir.value,
    force.value,
    coordinator.value,
    num_processes.value,
    process_id.value,
    num_devices.value,
    {
      "ids": (ids.value,) if ids.value else (),
      "arm": arm.value,
      "lists": tuple(lists.value),
      "out": out.value,
    },
  )


def _refuse_unread(command: str, given: list[str]) -> None:
  """Refuses a flag that the command would not read."""
  for name in given:
    if command not in READ_BY[name]:
      raise InputError(
        f"--{name} is read by {' and '.join(READ_BY[name])}, and not by {command};"
        " leave it out."
      )


def _resolve_config(argument: str) -> str:
  """Lets a bare name such as `demo` stand for the shipped config of that name."""
  match = re.fullmatch(r"(--?config=)(.+)", argument)
  if not match or os.path.isfile(match[2].split(":")[0]):
    return argument
  folder = next(iter(configs.__path__))
  shipped = os.path.join(folder, f"{match[2].removesuffix('.py')}.py")
  if "/" not in match[2] and os.path.exists(shipped):
    return match[1] + shipped
  raise InputError(
    f"--config={match[2]}: there is no such file. Shipped configs, usable by their"
    f" bare name: {', '.join(_shipped())}."
  )


def _explain(argv: list[str], error: Exception) -> str:
  """One message for whatever the flags' or the config's own code raised."""
  if isinstance(error, (KeyError, AttributeError)):
    found = re.search(r"\w+", str(error))
    wanted = found[0] if found else ""
    for argument in argv:
      key = argument.split("=")[0].lstrip("-").removeprefix("config.")
      if argument.startswith(("--config.", "-config.")) and wanted in key.split("."):
        return f"--config.{key}: there is no such key in the config.{_near(key)}"
  if isinstance(error, flags.Error):
    return f"{error}. See --help for the flags."
  return f"The config could not be read: {type(error).__name__}: {error}"


def _default_config():
  from mllm_selector_jax.configs import default

  return default.get_config()


def _near(key: str) -> str:
  """A suggestion: the key of the default config that is most alike."""

  def walk(section, prefix=""):
    for name, value in section.items():
      yield f"{prefix}{name}"
      if hasattr(value, "items"):
        yield from walk(value, f"{prefix}{name}.")

  known = list(walk(_default_config()))
  near = difflib.get_close_matches(key, known, 1, 0.5)
  return f" Did you mean --config.{near[0]}?" if near else ""


if __name__ == "__main__":
  main()
