"""A process that waits for others ends on SIGTERM and Ctrl-C, wherever it waits."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.models import tiny
from tests.real_processes import (
  ROOT,
  Forked,
  fork_many,
  free_port,
  wait_for,
  write_config,
)

SECONDS = 15  # that a process which got a signal may take; it has 6.5 by itself
OVERRIDES = {
  "pool.demo.rows": 60,
  "pool.demo.questions": 1,
  "seed.rows": "24",
  "seed.batch": 3,
  "seed.epochs": 40,  # so that it does not end meanwhile
  "score.batch_rows": 2,
  "score.part_rows": 4,
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
  """A workdir with a checked pool, and the config."""
  place = tmp_path_factory.mktemp("waiting")
  base = tiny.make_base(place / "base")
  settings = {**OVERRIDES, "score.model": str(base)}
  config = write_config(place / "config.py", base, **settings)
  status, said = Forked(place / "work", config, "check").end(120)
  assert status == 0, said
  return place / "work", config


@contextlib.contextmanager
def frozen(process):
  """The process stands still, alive: what waits for it waits for good."""
  process.send(signal.SIGSTOP)
  try:
    yield
  finally:
    process.kill()


def end(process, number):
  """Sends the signal; exit status and what was said, in time."""
  begin = time.monotonic()
  process.send(number)
  status, said = process.end(SECONDS)
  print(f"{time.monotonic() - begin:.1f} s", said)  # shown when it fails
  assert "Traceback" not in said and "resumes from" in said
  return status, said


SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "wanted"), SIGNALS)
@pytest.mark.parametrize("process_id", [0, 1])
def test_while_the_others_do_not_come(checked, tmp_path, process_id, number, wanted):
  _, config = checked
  flags = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
  alone = Forked(
    tmp_path / "work", config, "check", *flags, f"--process_id={process_id}"
  )
  time.sleep(2)
  status, said = end(alone, number)
  assert status == wanted
  assert f"process {process_id} of 2 was waiting for the others" in said


@pytest.mark.parametrize(("number", "wanted"), SIGNALS)
def test_at_a_barrier(checked, tmp_path, number, wanted):
  _, config = checked
  folder = tmp_path / "work"
  first, second = fork_many(2, folder, config, "check")
  wait_for(folder / "demo_pool.partial", first, second)
  with frozen(first):
    time.sleep(0.5)
    status, said = end(second, number)
  assert status == wanted
  assert "process 1 of 2 was waiting for the others (in peers.meet)" in said


def begin(checked, folder, *arguments, until):
  """A pair of processes that has come so far on a checked pool."""
  source, config = checked
  shutil.copytree(source, folder, symlinks=True)
  pair = fork_many(2, folder, config, *arguments)
  wait_for(folder / until, *pair)
  return pair


@pytest.mark.parametrize(
  ("waiting", "number", "wanted"), [(0, *SIGNALS[0]), (1, *SIGNALS[1])]
)
def test_in_a_step_on_the_devices(checked, tmp_path, waiting, number, wanted):
  part = "scores.partial/passes/main/part-00000.json"
  pair = begin(checked, tmp_path / "work", "score", until=part)
  with frozen(pair[1 - waiting]):
    time.sleep(0.5)
    status, said = end(pair[waiting], number)
  assert status == wanted
  assert f"process {waiting} of 2 was waiting for the others (in " in said


def test_in_a_training_that_saves(checked, tmp_path):
  """In a step, or for a checkpoint: that is ended first, unless a second one comes."""
  log = "logs/seed/steps.jsonl"
  every = "--config.seed.save_every=1"
  pair = begin(checked, tmp_path / "work", "seed", every, until=log)
  with frozen(pair[1]):
    time.sleep(0.5)
    pair[0].send(signal.SIGTERM)
    deadline = time.monotonic() + SECONDS
    while pair[0].poll() is None and "Once more leaves at" not in pair[0].said():
      assert time.monotonic() < deadline, pair[0].said()
      time.sleep(0.1)
    if pair[0].poll() is None:
      pair[0].send(signal.SIGTERM)
    status, said = pair[0].end(SECONDS)
  assert status == 143 and "resumes from" in said, said


def test_all_that_are_stopped_end_with_143(checked, tmp_path):
  """The first one makes what needs no devices, and the other waits meanwhile."""
  _, config = checked
  folder = tmp_path / "work"
  pair = fork_many(2, folder, config, "check")
  wait_for(folder / "demo_pool.partial", *pair)
  for process in pair:
    process.send(signal.SIGTERM)
  ended = [process.end(SECONDS) for process in pair]
  assert [status for status, _ in ended] == [143, 143], ended


@pytest.mark.parametrize("stopped", [0, 1])
def test_one_that_is_stopped_stops_the_others(checked, tmp_path, stopped):
  _, config = checked
  folder = tmp_path / "work"
  pair = fork_many(2, folder, config, "check")
  wait_for(folder / "demo_pool.partial", *pair)
  pair[stopped].send(signal.SIGTERM)
  ended = [process.end(SECONDS) for process in pair]
  assert [status for status, _ in ended] == [143, 143], ended
  for _, said in ended:
    assert said.count("Stopped: ") == 1 and "resumes from" in said, ended


CODE = """
import signal, sys, time
from mllm_selector_jax.runs import interrupts
interrupts.PATIENCE, interrupts.AGAIN = 0.3, 0.1
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
interrupts.listen("process 1 of 2")
"""


def run(code):
  """A process that says "ready" before it waits."""
  return subprocess.Popen(
    [sys.executable, "-c", CODE + code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )


def send(process, number=signal.SIGTERM):
  os.kill(process.pid, number)


WAIT = "print('ready', flush=True); signal.pthread_sigmask(2, []); time.sleep(30)\n"


def test_work_that_is_held_is_ended_unless_a_second_signal_comes():
  held = "with interrupts.held('the checkpoint'):\n  "
  process = run(held + WAIT)
  assert process.stdout.readline() == "ready\n"
  send(process)
  with pytest.raises(subprocess.TimeoutExpired):
    process.wait(1)
  send(process)
  _, said = process.communicate(timeout=5)
  assert process.returncode == 143
  assert "SIGTERM: first the checkpoint. Once more leaves at once." in said
  assert "got SIGTERM again" in said


def test_a_stage_whose_steps_take_long_is_given_longer():
  steps = """
with interrupts.pace() as note:
  for seconds in (0.4, 5, 0.5, 0.4, 0):  # one is compiled
    note(); time.sleep(seconds)
  print("ready", flush=True)
  time.sleep(0.9)
  print("a step that took 0.9 s", flush=True)
  time.sleep(30)
"""
  process = run(steps)
  assert process.stdout.readline() == "ready\n"
  send(process)
  said, _ = process.communicate(timeout=4)
  assert process.returncode == 143 and "a step that took 0.9 s" in said


def test_a_process_that_moves_is_left_alone():
  process = run("""
print("ready", flush=True)
end = time.monotonic() + 1.5
while time.monotonic() < end:
  (lambda: time.sleep(0.05))()
print("done", flush=True)
""")
  assert process.stdout.readline() == "ready\n"
  send(process)
  said, _ = process.communicate(timeout=10)
  assert (process.returncode, said) == (0, "asked\ndone\n")


def test_a_forked_worker_keeps_its_signals_to_itself():
  process = run("""
import os
child = os.fork()
if not child:
  signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
  time.sleep(30)
time.sleep(0.3)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
time.sleep(1)
print("goes on")
""")
  said, fault = process.communicate(timeout=10)
  assert (process.returncode, said) == (0, "7\ngoes on\n"), fault
