"""One command line carried out: its processes joined, its run opened, its end told."""

import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags

from mllm_selector_jax import command_line
from mllm_selector_jax.runs import failures, processes
from mllm_selector_jax.runs.memory import keep_freed_memory
from mllm_selector_jax.runs.standard_output import write_result
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, RunError, Stopped


def run(argv: list[str]) -> int:
  """The exit status of a command line: 0, 1, 2, 130 or 143."""
  keep_freed_memory()
  before = signal.signal(signal.SIGTERM, _leave_before_run)
  try:
    if argv[1:2] == ["assemble"]:
      _assemble(argv)
      return 0
    if argv[1:2] == ["verify"]:
      from mllm_selector_jax.pipeline import card

      folder = command_line.parse_card(argv)
      write_result(card.verify(folder, command_line.default_config()))
      return 0
    call = _agree_on_call(argv)
    if call is None:
      return 2
    processes.check_devices(call.num_devices)
    # After the command line was read, since it takes seconds to import.
    from mllm_selector_jax.runs.context import open_run

    with open_run(call.cfg, call.workdir, call.force, **call.asked) as current:
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
  from mllm_selector_jax.runs import agreement

  agreement.compare(agreement.describe(call.describe(), call.cfg))
  return call


def _carry_out(command: str, current: Any) -> int:
  """Runs a command; whatever ends it is one message, also in the log."""
  before = signal.signal(signal.SIGTERM, lambda *_: current.stop())
  try:
    from mllm_selector_jax.settings import check_settings

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


def _assemble(argv: list[str]) -> None:
  """The one command that works on models alone, without config and workdir."""
  from mllm_selector_jax.stages import assemble  # defines its flags

  try:
    flags.FLAGS([argv[0], *argv[2:]])
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  assemble.assemble()
