"""Carries out a command line: joins the processes, opens the run, calls the command."""

import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags

from mllm_selector_jax import command_line
from mllm_selector_jax.panics import explaining_panics
from mllm_selector_jax.runs import agreement, failures, peers, processes
from mllm_selector_jax.runs.memory import keep_freed_memory
from mllm_selector_jax.runs.standard_output import write_result
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, RunError, Stopped
from mllm_selector_jax.usage.resolved_config import format_config

# Commands that read the tokenizer and the image processor of a base, but no model.
WITHOUT_MODELS = ("check", "prepare")


def run(argv: list[str], own_process: bool = False) -> int:
  """Carries out a command line, and returns its exit status: 0, 1, 2, 130 or 143.

  Args:
    argv: the command line.
    own_process: whether the process ends with the command, so that the command may
      leave out imports that other code in the process could need.
  """
  keep_freed_memory()
  handler_before = signal.signal(signal.SIGTERM, _leave_before_run)
  try:
    if argv[1:2] == ["assemble"]:
      _assemble(argv)
      return 0
    if argv[1:2] == ["verify"]:
      from mllm_selector_jax.pipeline import card

      folder = command_line.parse_card(argv)
      write_result(card.verify(folder, command_line.default_config()))
      return 0
    if argv[1:2] == ["push"]:
      from mllm_selector_jax.pipeline import hub_push

      write_result(hub_push.push(*command_line.parse_push(argv)))
      return 0
    if argv[1:2] == ["completion"]:  # with a shell, main has answered it
      raise InputError("completion needs the name of a shell: bash or zsh.")
    if command_line.asks_config(argv):
      cfg = command_line.parse_config(argv)
      write_result(format_config(cfg, command_line.default_config(), argv))
      return 0
    call = _agree_on_call(argv)
    if call is None:
      return 2
    processes.check_devices(call.num_devices)
    # Imported only after the command line was read, since this takes seconds.
    from mllm_selector_jax.runs.context import open_run

    with open_run(call.cfg, call.workdir, call.force, **call.asked) as current:
      return _carry_out(call.command, current, own_process)
  except Stopped as stopped:
    return _end(f"Stopped: {stopped}.", 143)
  except (KeyboardInterrupt, Exception) as error:
    if failures.is_interruption(error):
      return _end("Interrupted.", 130)
    processes.leave_to_others(error)
    text, status = failures.explain(error, "", None)
    return _end(f"Error: {processes.name()}{text}", status)
  finally:
    # A process that is about to leave has its status already.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if own_process else handler_before)


def _say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def _end(text: str, status: int, say: Callable[[str], None] = _say) -> int:
  """Says why this process ends, tells the other processes, and returns the status."""
  say(text)
  processes.tell(text, status)
  return status


def _leave_before_run(number: int, frame: Any) -> None:
  raise Stopped("SIGTERM arrived before the run began")


def _agree_on_call(argv: list[str]) -> command_line.Call | None:
  """Parses the command line, joins the processes, and compares their command lines.

  Returns:
    None if the command line of this process is wrong; the error has been shown.

  Raises:
    InputError: the processes have different command lines.
  """
  call, fault = None, ""
  try:
    call = command_line.parse(argv)
  except InputError as error:
    fault = str(error)
    _say(f"Error: {fault}")  # said now, since the other processes may be late
  try:
    processes.join(*command_line.parse_meeting(argv))
  except (InputError, RunError):
    if not fault:
      raise
  if fault:
    processes.tell(f"Error: {processes.name()}{fault}", 2)
    return None
  if peers.number_and_count()[1] > 1:
    agreement.compare(agreement.describe(call.describe(), call.cfg))
  return call


def _carry_out(command: str, current: Any, own_process: bool) -> int:
  """Runs a command, and explains whatever ends it in one message.

  Args:
    command: the name of the command.
    current: the open `Run`.
    own_process: whether the process ends with the command.

  Returns:
    The exit status.
  """
  handler_before = signal.signal(signal.SIGTERM, lambda *_: current.stop())
  try:
    from mllm_selector_jax.settings import check_settings

    check_settings(current, command)
    if own_process and command in WITHOUT_MODELS:
      from mllm_selector_jax.models.huggingface import without_torch

      without_torch.import_transformers()  # after the plug-ins that settings name
    with explaining_panics("A library cannot read a file of the pool or of the base"):
      COMMANDS[command](current)
    return 0
  except Stopped as stopped:
    text = f"Stopped: {stopped}. The same command resumes from here."
    return _end(text, 143, current.console.say)
  except (KeyboardInterrupt, Exception) as error:
    if failures.is_interruption(error):
      text = "Interrupted. The same command resumes from what is complete."
      return _end(text, 130, current.console.say)
    processes.leave_to_others(error)
    if not failures.is_expected(error):
      current.console.record(traceback.format_exc())
    if processes.is_lost(error) and current.stopped():
      return 143  # the other processes were stopped too
    text, status = failures.explain(error, current.stage, current.workdir.path)
    return _end(f"Error: {processes.name()}{text}", status, current.console.say)
  finally:
    signal.signal(signal.SIGTERM, handler_before)


def _assemble(argv: list[str]) -> None:
  """Runs the command `assemble`, which needs neither config nor workdir."""
  from mllm_selector_jax.stages import assemble  # defines its flags

  try:
    flags.FLAGS([argv[0], *argv[2:]])
  except flags.Error as error:
    raise InputError(f"{error}. See --help for the flags.") from error
  assemble.assemble()
