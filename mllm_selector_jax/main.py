"""The command line: `mllm-selector [command] --config=FILE --workdir=DIR`.

And `mllm-selector assemble --decoder=DIR --vision=DIR --out=DIR`.
"""

import difflib
import os
import re
import signal
import sys

from absl import flags
from ml_collections import config_flags

from mllm_selector_jax import configs
from mllm_selector_jax.stages import COMMANDS, context
from mllm_selector_jax.stages.memory import keep_freed_memory
from mllm_selector_jax.types import InputError, RunError, Stopped

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A config file, or the bare name of one that is shipped."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written.")
_FORCE = flags.DEFINE_bool(
  "force", False, "Take a pool whose files changed since it was checked."
)


def main(argv: list[str] | None = None) -> None:
  """Runs one command and leaves with its exit status."""
  sys.exit(run(sys.argv if argv is None else argv))


def run(argv: list[str]) -> int:
  """The exit status of a command line: 0, 1, 2 or 143."""
  keep_freed_memory()
  try:
    if argv[1:2] == ["assemble"]:
      _assemble(argv)
      return 0
    command, cfg = _parse(argv)
    with context.open_run(cfg, _WORKDIR.value, force=_FORCE.value) as current:
      signal.signal(signal.SIGTERM, lambda *_: current.stop())
      try:
        COMMANDS[command](current)
      except Stopped as stopped:
        current.say(f"Stopped: {stopped}. The same command goes on from here.")
        return 143
      except (InputError, RunError) as error:
        current.say(f"Error: {error}")
        return 2 if isinstance(error, InputError) else 1
    return 0
  except (InputError, RunError) as error:
    print(f"Error: {error}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1
  except KeyboardInterrupt:
    print("Interrupted. The same command goes on from here.", file=sys.stderr)
    return 130


def _assemble(argv: list[str]) -> None:
  """The one command that works on models alone, without config and workdir."""
  from mllm_selector_jax.stages import assemble  # defines its flags

  try:
    flags.FLAGS([argv[0], *argv[2:]])
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  assemble.assemble()


def _parse(argv: list[str]):
  """The command and the config.

  Raises:
    InputError: a flag, key or value is wrong.
  """
  argv = [_resolve_config(argument) for argument in argv]
  try:
    rest = flags.FLAGS(argv)[1:]
    cfg = _CONFIG.value
  except KeyboardInterrupt:
    raise
  except Exception as error:  # a config file may raise anything
    raise InputError(_explain(argv, error)) from error
  if cfg is None:
    raise InputError("--config=FILE is needed, for example --config=configs/demo.py.")
  if not hasattr(cfg, "rng_seed"):
    raise InputError("--config names a file whose get_config() gives no full config.")
  if not _WORKDIR.value:
    raise InputError("--workdir=DIR is needed: everything is written there.")
  command = rest[0] if rest else "run"
  if command not in COMMANDS or len(rest) > 1:
    raise InputError(
      f"{' '.join(rest)!r} is not a command; there are {', '.join(COMMANDS)}."
    )
  return command, cfg


def _resolve_config(argument: str) -> str:
  """Lets a bare name such as `demo` stand for the shipped config of that name."""
  match = re.fullmatch(r"(--?config=)(.+)", argument)
  if not match or os.path.isfile(match[2].split(":")[0]):
    return argument
  folder = next(iter(configs.__path__))
  shipped = os.path.join(folder, f"{match[2].removesuffix('.py')}.py")
  if "/" not in match[2] and os.path.exists(shipped):
    return match[1] + shipped
  names = sorted(name[:-3] for name in os.listdir(folder) if not name.startswith("_"))
  raise InputError(
    f"--config={match[2]}: there is no such file. Shipped configs, usable by their"
    f" bare name: {', '.join(name for name in names if name)}."
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


def _near(key: str) -> str:
  """A suggestion: the key of the default config that is most alike."""
  from mllm_selector_jax.configs import default

  def walk(section, prefix=""):
    for name, value in section.items():
      yield f"{prefix}{name}"
      if hasattr(value, "items"):
        yield from walk(value, f"{prefix}{name}.")

  known = list(walk(default.get_config()))
  near = difflib.get_close_matches(key, known, 1, 0.5)
  return f" Did you mean --config.{near[0]}?" if near else ""


if __name__ == "__main__":
  main()
