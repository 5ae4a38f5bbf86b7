"""Processes that are done while another one of the run is not."""

import subprocess
import sys
import time

import pytest

from tests.real_processes import ROOT, free_port

CODE = """
import os, signal, sys, threading, time
from mllm_selector_jax.runs import peers, processes
port, number, last, how = sys.argv[1:]
if how == "hears late" and number == last:
  processes.HEARING = 1000.0  # as on a machine that is too busy
processes.join(f"127.0.0.1:{port}", 2, int(number))
if how == "hears late":
  peers.meet("first")  # connects them
  if number != last:
    time.sleep(1.5)
    processes.tell("Stopped: process 1.", 143)
    processes.leave(143)
  try:
    peers.meet("here")
  except Exception as error:
    processes.leave_to_others(error)
    print("Error: another process is gone", file=sys.stderr)
    processes.leave(1)
if number == last:  # the other one is done
  time.sleep(1.5)
  if how == "interrupted":
    processes.tell("Interrupted.", 130)
    processes.leave(130)
  if how == "another is stopped":
    time.sleep(25)
elif how == "another is stopped":
  threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
processes.leave(0)
"""


def run(last, how):
  """The exit statuses of two processes, what they said, and their seconds."""
  port, begun = str(free_port()), time.monotonic()
  pair = [
    subprocess.Popen(
      [sys.executable, "-c", CODE, port, str(number), str(last), how],
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )
    for number in range(2)
  ]
  said = [process.communicate(timeout=50)[1] for process in pair]
  return [process.returncode for process in pair], said, time.monotonic() - begun


@pytest.mark.parametrize("last", [0, 1])
def test_one_that_is_done_waits_for_the_other(last):
  assert run(last, "well")[:2] == ([0, 0], ["", ""])


@pytest.mark.parametrize("last", [0, 1])
def test_one_that_is_done_ends_like_one_that_is_interrupted(last):
  statuses, said, seconds = run(last, "interrupted")
  assert statuses == [130, 130], said
  assert said[1 - last] == "Interrupted.\n" and said[last] == ""
  assert seconds < 30


@pytest.mark.parametrize("last", [0, 1])
def test_one_that_is_done_can_be_stopped_and_stops_the_other(last):
  statuses, said, _ = run(last, "another is stopped")
  assert statuses == [143, 143], said
  text = f"Stopped: process {1 - last} of 2 was waiting for the others"
  assert [one.startswith(text) for one in said] == [True, True], said
  assert [one.count("\n") for one in said] == [1, 1], said


def test_one_that_hears_late_ends_as_it_was_told_all_the_same():
  statuses, said, _ = run(0, "hears late")
  assert statuses == [143, 143], said
  assert "Stopped: process 1.\n" in said[0] and "is gone" not in said[0], said
