"""Whatever ends a stage is one message, with its traceback in the log."""

import dataclasses
import errno
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError


def raising(error):
  def stage(current):
    current.begin("score")
    error()

  return stage


def run_out_of_device_memory():
  jnp.zeros(2**50)


def run_out_of_host_memory():
  np.zeros(2**45)


def fill_the_disk():
  with open("/dev/full", "w") as file:
    file.write("x")


def open_what_may_not_be():
  raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "scores/part")


def fail():
  {}["no such key"]


@pytest.mark.parametrize(
  ("error", "words"),
  [
    (run_out_of_device_memory, ("out of memory", "--config.score.batch_rows")),
    (run_out_of_host_memory, ("out of memory", "--config.score.batch_rows")),
    (fill_the_disk, ("No space left", "bytes are free", "same command")),
    (open_what_may_not_be, ("scores/part: Permission denied",)),
    (fail, ("score: KeyError", "test_failures.py, line", "log.txt")),
  ],
)
def test_whatever_ends_a_stage_is_one_message(
  command, tmp_path, monkeypatch, error, words
):
  monkeypatch.setitem(COMMANDS, "score", raising(error))
  status, said = command("score")
  assert status == 1
  for word in words:
    assert word in said
  assert len(said.strip().splitlines()) == 1
  assert "Traceback" in (tmp_path / "work/log.txt").read_text()


class Interrupting:
  """A static argument that is interrupted while it is compared."""

  def __eq__(self, other):
    raise KeyboardInterrupt

  def __hash__(self):
    return 0


def interrupt():
  raise KeyboardInterrupt


def interrupt_within_jax():
  """Lets jax make a ValueError of it, as of any exception of a comparison."""

  @jax.tree_util.register_dataclass
  @dataclasses.dataclass
  class Argument:
    value: float
    kind: Interrupting = dataclasses.field(metadata={"static": True})

  function = jax.jit(lambda argument: argument.value)
  for value in (1.0, 2.0):
    function(Argument(value, Interrupting()))


def interrupt_within_a_reader():
  try:
    interrupt_within_jax()
  except ValueError as error:
    raise InputError("pool.json is damaged") from error


@pytest.mark.parametrize(
  "error", [interrupt, interrupt_within_jax, interrupt_within_a_reader]
)
def test_an_interruption_is_130_and_the_old_handler_comes_back(
  command, monkeypatch, error
):
  before = signal.getsignal(signal.SIGTERM)
  monkeypatch.setitem(COMMANDS, "score", raising(error))
  status, said = command("score")
  assert status == 130 and "resumes" in said and "fault" not in said
  assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_after_an_interruption_is_told(command, monkeypatch):
  def fail_to_save():
    try:
      interrupt()
    finally:
      fill_the_disk()

  monkeypatch.setitem(COMMANDS, "score", raising(fail_to_save))
  status, said = command("score")
  assert status == 1 and "No space left" in said
