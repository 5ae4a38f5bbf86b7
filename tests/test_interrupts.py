"""Ctrl-C is held back, not lost."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from mllm_selector_jax.runs import interrupts


@pytest.fixture(autouse=True)
def heard():
  """Ctrl-C as a process has it that was started in the foreground."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def interrupt():
  os.kill(os.getpid(), signal.SIGINT)


def test_the_first_comes_when_the_block_has_ended(capfd):
  done = []
  with pytest.raises(KeyboardInterrupt):
    with interrupts.held("the checkpoint is written"):
      interrupt()
      done.append("all of it")
    done.append("what follows")
  assert done == ["all of it"]
  assert "first the checkpoint is written" in capfd.readouterr().err
  with pytest.raises(KeyboardInterrupt):
    interrupt()


def test_the_second_comes_at_once():
  done = []
  with pytest.raises(KeyboardInterrupt):
    with interrupts.held("work"):
      interrupt()
      done.append("after the first")
      interrupt()
      done.append("after the second")
  assert done == ["after the first"]


def test_an_error_of_the_block_is_not_lost():
  with pytest.raises(KeyboardInterrupt) as caught:
    with interrupts.held("work"):
      interrupt()
      raise OSError("disk full")
  assert isinstance(caught.value.__context__, OSError)
  with pytest.raises(OSError):
    with interrupts.held("work"):
      raise OSError("disk full")


def test_other_threads_leave_the_handler_alone():
  before, seen = signal.getsignal(signal.SIGINT), []

  def work():
    with interrupts.held("work"):
      seen.append(signal.getsignal(signal.SIGINT))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [before]


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
  before, done = signal.signal(signal.SIGINT, signal.SIG_IGN), []
  try:
    with interrupts.held("work"):
      interrupt()
      done.append("what is in the block")
    done.append("what follows")
  finally:
    signal.signal(signal.SIGINT, before)
  assert done == ["what is in the block", "what follows"]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("status", [0, 2])
def test_a_signal_after_the_end_of_a_run_changes_no_status(number, status):
  # Functions of atexit run when the status is known and the process is on its way out.
  code = (
    "import atexit, os, signal\n"
    "from mllm_selector_jax.runs import processes\n"
    f"atexit.register(lambda: os.kill(os.getpid(), signal.{number}))\n"
    f"processes.leave({status})\n"
  )
  ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert (ended.returncode, ended.stderr) == (status, "")
