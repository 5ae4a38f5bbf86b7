"""Parses the command line: the command, its config and its flags."""

import difflib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from mllm_selector_jax import configs
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from mllm_selector_jax.usage.config_keys import list_shipped
from mllm_selector_jax.usage.flag_table import SPECIAL

# Keys that there were, as section and name, and what is given now.
REPLACED = {("log", "tensorboard"): "log.trackers=tensorboard"}


class Call(NamedTuple):
  """A parsed command line.

  Attributes:
    command: the name of the command.
    cfg: the config.
    workdir: the folder or bucket of the artifacts.
    force: whether to accept a pool whose files have changed.
    num_processes: the number of processes of the run; None if it is not given.
    num_devices: the number of devices that must be present; None for any.
    asked: the flags that only some commands read, by the names of `Run`'s fields.
  """

  command: str
  cfg: Any
  workdir: str
  force: bool
  num_processes: int | None
  num_devices: int | None
  asked: dict[str, Any]

  def describe(self) -> dict[str, Any]:
    """Returns the command and those flags that must be the same in all processes."""
    flags_by_name = {
      "workdir": self.workdir,
      "force": self.force,
      "num_processes": self.num_processes,
      "num_devices": self.num_devices,
      **self.asked,
    }
    named = {f"--{name}": value for name, value in flags_by_name.items()}
    return {"the command": self.command, **named}


def parse_card(argv: list[str]) -> Path:
  """Parses the folder of `verify`, which needs neither config nor workdir.

  Raises:
    InputError: there is no --card, or another flag.
  """
  values = flags.FlagValues()
  folder = flags.DEFINE_string("card", None, "", flag_values=values)
  try:
    rest = values([argv[0], *argv[2:]])[1:]
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  if rest or not folder.value:
    raise InputError("verify needs --card=DIR, a card that export-selection wrote.")
  return Path(folder.value)


def parse_push(argv: list[str]) -> tuple[Path, str, bool]:
  """Parses the folder, the repository and `--public` of `push`.

  Raises:
    InputError: a flag is missing, or there is another one.
  """
  values = flags.FlagValues()
  folder = flags.DEFINE_string("folder", None, "", flag_values=values)
  repo = flags.DEFINE_string("repo", None, "", flag_values=values)
  public = flags.DEFINE_bool("public", False, "", flag_values=values)
  try:
    rest = values([argv[0], *argv[2:]])[1:]
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  if rest or not folder.value or not repo.value:
    raise InputError(
      "push needs --folder=DIR, a card or a model, and --repo=OWNER/NAME."
    )
  return Path(folder.value), repo.value, public.value


def parse(argv: list[str]) -> Call:
  """Parses a command line. Calls do not affect each other.

  Raises:
    InputError: a flag, key or value is wrong.
  """
  values, rest, cfg = _read(argv)
  if not values.workdir:
    raise InputError("--workdir=DIR is needed: everything is written there.")
  command = rest[0] if rest else "run"
  if command not in COMMANDS or len(rest) > 1:
    raise InputError(
      f"{' '.join(rest)!r} is not a command; there are {', '.join(COMMANDS)}."
    )
  _refuse_unread(command, [name for name in SPECIAL if values[name].value])
  return Call(
    command,
    cfg,
    values.workdir,
    values.force,
    values.num_processes,
    values.num_devices,
    {
      "ids": (values.id,) if values.id else (),
      "arm": values.arm,
      "lists": tuple(values.ids),
      "out": values.out,
    },
  )


def parse_config(argv: list[str]) -> Any:
  """Parses a command line for its config alone; --workdir may be missing.

  Raises:
    InputError: a flag, key or value is wrong.
  """
  return _read(argv)[2]


def asks_config(argv: list[str]) -> bool:
  """Returns whether a command line asks for the config and for nothing else."""
  return bool({"--print_config", "-print_config"} & set(argv[1:]))


def _read(argv: list[str]) -> tuple[flags.FlagValues, list[str], Any]:
  """Reads the flags, what is none (the command), and the config."""
  argv = [_resolve_config(argument) for argument in argv]
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file(
    "config", None, "", flag_values=values, sys_argv=argv
  )
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  flags.DEFINE_bool("force", False, "", flag_values=values)
  flags.DEFINE_bool("print_config", False, "", flag_values=values)
  _define_meeting(values)
  flags.DEFINE_integer("num_devices", None, "", flag_values=values)
  flags.DEFINE_string("id", "", "", flag_values=values)  # may hold commas
  flags.DEFINE_string("arm", None, "", flag_values=values)
  flags.DEFINE_list("ids", [], "", flag_values=values)
  flags.DEFINE_string("out", "", "", flag_values=values)
  try:
    rest = values(argv)[1:]
    cfg = config.value
    is_whole = cfg is None or hasattr(cfg, "rng_seed")
  except Exception as error:  # a config file may raise anything
    raise InputError(_explain(argv, error)) from error
  if cfg is None:
    raise InputError("--config=FILE is needed, for example --config=configs/demo.py.")
  if not is_whole:
    raise InputError("--config names a file whose get_config() gives no full config.")
  return values, rest, cfg


def parse_meeting(argv: list[str]) -> tuple[str | None, int | None, int | None]:
  """Parses the flags by which the processes of a run meet, and ignores all others.

  Returns:
    The coordinator, the number of processes, and the number of this process.

  Raises:
    InputError: one of these flags is wrong.
  """
  values = flags.FlagValues()
  meeting = _define_meeting(values)
  try:
    values(argv, known_only=True)
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  return tuple(flag.value for flag in meeting)


def _define_meeting(values: flags.FlagValues) -> tuple[flags.FlagHolder, ...]:
  return (
    flags.DEFINE_string("coordinator", None, "", flag_values=values),
    flags.DEFINE_integer("num_processes", None, "", flag_values=values),
    flags.DEFINE_integer("process_id", None, "", flag_values=values),
  )


def _refuse_unread(command: str, flag_names: list[str]) -> None:
  """Refuses flags that the command does not read."""
  for name in flag_names:
    if name not in COMMANDS[command].flags:
      known = [other for other, each in COMMANDS.items() if name in each.flags]
      *most, last = known
      readers = f"{', '.join(most)} and {last}" if most else last
      raise InputError(
        f"--{name} is read by {readers}, and not by {command}; leave it out."
      )


def _resolve_config(argument: str) -> str:
  """Replaces the bare name of a shipped config, such as `demo`, by its path."""
  match = re.fullmatch(r"(--?config=)(.+)", argument)
  if not match or os.path.isfile(match[2].split(":")[0]):
    return argument
  folder = next(iter(configs.__path__))
  shipped = os.path.join(folder, f"{match[2].removesuffix('.py')}.py")
  if "/" not in match[2] and os.path.exists(shipped):
    return match[1] + shipped
  raise InputError(
    f"--config={match[2]}: there is no such file. Shipped configs can be given by their"
    f" bare names: {', '.join(list_shipped())}."
  )


def _explain(argv: list[str], error: Exception) -> str:
  """Explains an exception of the flags or of the config file in one message."""
  if isinstance(error, (KeyError, AttributeError)):
    for (section, key), new in REPLACED.items():  # in the command line or in the file
      if re.match(rf"\W*(Key \W*)?{key}\b", str(error)):
        return f"The key {section}.{key} was replaced. Give --config.{new} instead."
    match = re.search(r"\w+", str(error))
    missing_name = match[0] if match else ""
    for argument in argv:
      is_override = argument.startswith(("--config.", "-config."))
      key = argument.split("=")[0].lstrip("-").removeprefix("config.")
      if is_override and missing_name in key.split("."):
        return f"--config.{key}: there is no such key in the config.{_near(key)}"
  if isinstance(error, flags.Error):
    if "Error whilst parsing config file" in str(error):
      return _explain_config_file(str(error))
    return f"{error}. See --help for the flags."
  if missing := re.match(r"\W*Key \W*(\w+)\W* does not exist", str(error)):
    return (
      f"The config could not be read: it sets {missing[1]}, and there is no such key"
      f" in that section.{_near(missing[1])}"
    )
  said = re.sub(r": <[^<>]* at 0x[0-9a-f]+>", "", str(error))  # of Python's parser
  lines = said.splitlines() or [""]
  return f"The config could not be read: {type(error).__name__}: {lines[0][:300]}"


def _explain_config_file(text: str) -> str:
  """Explains an error in a config file, of which ml_collections tells a traceback."""
  said = re.split(r"\n +.*\n", f"\n{text}")[-1]  # what follows the last indented line
  path = text.partition("--config=")[2].partition(": Error whilst")[0]
  numbers = [
    number
    for file, number in re.findall(r'File "([^"]+)", line (\d+)', text)
    if os.path.realpath(file) == os.path.realpath(path)
  ]
  where = f", line {numbers[-1]}" if numbers else ""
  return f"--config={path}{where}: {' '.join(said.split())[:300]}"


def default_config() -> Any:
  """Returns the config from which all others start."""
  from mllm_selector_jax.configs import default

  return default.get_config()


def _near(key: str) -> str:
  """Suggests the keys of the default config that are most similar; "" if none is.

  It is one key, or two of other sections if all have the same last name.
  """

  def walk(section, prefix=""):
    for name, value in section.items():
      yield f"{prefix}{name}"
      if hasattr(value, "items"):
        yield from walk(value, f"{prefix}{name}.")

  known = list(walk(default_config()))
  near = difflib.get_close_matches(key, known, 2, 0.5)
  if len({name.rpartition(".")[2] for name in (key, *near)}) > 1:
    near = near[:1]
  names = " or ".join(f"--config.{name}" for name in near)
  return f" Did you mean {names}?" if near else ""
