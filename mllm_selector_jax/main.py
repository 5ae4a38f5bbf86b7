"""The command line: `mllm-selector [command] --config=FILE --workdir=DIR`.

And `mllm-selector assemble --decoder=DIR --vision=DIR --out=DIR`, and
`mllm-selector verify --card=DIR`.
"""

import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags

from mllm_selector_jax import command_line
from mllm_selector_jax.stages import (
  COMMANDS,
  agreement,
  card,
  context,
  failures,
  processes,
)
from mllm_selector_jax.stages.memory import keep_freed_memory
from mllm_selector_jax.stages.settings import check_settings
from mllm_selector_jax.types import InputError, RunError, Stopped

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


def main(argv: list[str] | None = None) -> None:
  """Runs one command and leaves with its exit status."""
  processes.leave(run(sys.argv if argv is None else argv))


def run(argv: list[str]) -> int:
  """The exit status of a command line: 0, 1, 2, 130 or 143."""
  keep_freed_memory()
  before = signal.signal(signal.SIGTERM, _leave_before_run)
  try:
    if {"--help", "-help", "-h", "help"} & set(argv[1:]):
      print(_usage(argv[1]))
      return 0
    if argv[1:2] == ["assemble"]:
      _assemble(argv)
      return 0
    if argv[1:2] == ["verify"]:
      print(card.verify(command_line.parse_card(argv), command_line.default_config()))
      return 0
    call = _agree_on_call(argv)
    if call is None:
      return 2
    processes.check_devices(call.num_devices)
    with context.open_run(call.cfg, call.workdir, call.force, **call.asked) as current:
      return _carry_out(call.command, current)
  except Stopped as stopped:
    return _end(f"Stopped: {stopped}.", 143)
  except KeyboardInterrupt:
    return _end("Interrupted.", 130)
  except Exception as error:
    processes.leave_to_others()
    text, status = failures.explain(error, "", None)
    return _end(f"Error: {processes.name()}{text}", status)
  finally:
    signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def _end(text: str, status: int, say: Callable[[str], None] = _say) -> int:
  """Says why this process ends, also to the others, and gives the status."""
  say(text)
  processes.tell(text, status)
  return status


def _leave_before_run(number: int, frame: Any) -> None:
  raise Stopped("SIGTERM came before the run began")


def _agree_on_call(argv: list[str]) -> command_line.Call | None:
  """What the command line asks for, the same in all processes, which are joined.

  Returns:
    None where this process's command line is wrong, which has then been said.

  Raises:
    InputError: the processes do not ask for the same.
  """
  call, fault = None, ""
  try:
    call = command_line.parse(argv)
  except InputError as error:
    fault = str(error)
    _say(f"Error: {fault}")  # others may come late
  try:
    processes.join(*command_line.parse_meeting(argv))
  except (InputError, RunError):
    if not fault:
      raise
  if fault:
    processes.tell(f"Error: {processes.name()}{fault}", 2)
    return None
  agreement.compare(agreement.describe(call.describe(), call.cfg))
  return call


def _carry_out(command: str, current: context.Run) -> int:
  """Runs a command; whatever ends it is one message, also in the log."""
  before = signal.signal(signal.SIGTERM, lambda *_: current.stop())
  try:
    check_settings(current, command)
    COMMANDS[command](current)
    return 0
  except Stopped as stopped:
    text = f"Stopped: {stopped}. The same command goes on from here."
    return _end(text, 143, current.console.say)
  except KeyboardInterrupt:
    text = "Interrupted. The same command goes on from what is whole."
    return _end(text, 130, current.console.say)
  except Exception as error:
    processes.leave_to_others()
    if not failures.is_expected(error):
      current.console.record(traceback.format_exc())
    if processes.is_lost(error) and current.stopped():
      return 143  # the others were stopped, too
    text, status = failures.explain(error, current.stage, current.workdir.path)
    return _end(f"Error: {processes.name()}{text}", status, current.console.say)
  finally:
    signal.signal(signal.SIGTERM, before)


def _usage(command: str) -> str:
  if command == "assemble":
    from mllm_selector_jax.stages import assemble

    return assemble.__doc__ + flags.FLAGS.module_help(assemble)
  lines = [
    f"  {name:9} {(function.__doc__ or '').splitlines()[0]}"
    for name, function in COMMANDS.items()
  ]
  lines.append(
    "  assemble  Makes a base from a decoder, a vision tower and a projector."
  )
  lines.append(
    "  verify    Draws the published selection of --card=DIR again, compares."
  )
  shipped = ", ".join(command_line.list_shipped())
  return USAGE.format(commands="\n".join(lines), configs=shipped)


def _assemble(argv: list[str]) -> None:
  """The one command that works on models alone, without config and workdir."""
  from mllm_selector_jax.stages import assemble  # defines its flags

  try:
    flags.FLAGS([argv[0], *argv[2:]])
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  assemble.assemble()


if __name__ == "__main__":
  main()
