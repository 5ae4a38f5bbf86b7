"""slurm.sh on a real SLURM of one node: killed, stopped before its limit, and compared.

Skipped where SLURM is not installed (Debian: apt-get install slurmctld slurmd
slurm-client munge). It takes minutes: SLURM looks at time limits twice a minute.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import compiling, small_run
from tests.models import tiny
from tests.real_processes import write_config

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
LONGEST = 1200  # seconds that a job may take on a busy machine

pytestmark = [
  pytest.mark.slow,
  pytest.mark.exhaustive,
  pytest.mark.skipif(
    not all(shutil.which(program, path=SBIN) for program in PROGRAMS),
    reason="SLURM is not installed",
  ),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
  """SLURM's daemons; the environment in which its programs reach them."""
  # A socket's path has at most 107 characters.
  folder = tmp_path_factory.mktemp("node")
  script = LAUNCH / "slurm_node.sh"
  done = subprocess.run([script, "start", folder], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  name, _, value = done.stdout.strip().removeprefix("export ").partition("=")
  yield {**os.environ, name: value}
  subprocess.run([script, "stop", folder], check=True)


class Job:
  """One job of two tasks that makes a run, with this environment's `mllm-selector`."""

  def __init__(self, node, place, config, workdir, *options):
    self.node, self.log = node, place / "job.log"
    environment = place / "env/bin"
    environment.mkdir(parents=True, exist_ok=True)
    (environment / "activate").write_text(f"PATH={environment}:$PATH\n")
    (environment / "mllm-selector").write_text(
      f'#!/bin/sh\nexec {sys.executable} -m mllm_selector_jax.main "$@"\n'
    )
    (environment / "mllm-selector").chmod(0o755)
    extra = {
      "VENV": str(environment.parent),
      "PYTHONPATH": str(ROOT),
      "XLA_FLAGS": compiling.QUICK,
      "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = ["sbatch", "--parsable", "--gres=none", "--ntasks-per-node=2"]
    command += ["--cpus-per-task=1", f"--output={self.log}", *options]
    command += [LAUNCH / "slurm.sh", f"--config={config}", f"--workdir={workdir}"]
    self.number = self._call(*command, **extra).strip()

  def _call(self, *command, attempts=1, **extra):
    for attempt in range(attempts):
      done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**self.node, **extra},
      )
      if done.returncode == 0:
        return done.stdout
      time.sleep(2 * attempt)
    raise AssertionError(done.stderr)

  def describe(self):
    """What SLURM says of the job, by its names."""
    # On a busy machine the controller may answer too late.
    said = self._call("scontrol", "show", "job", self.number, attempts=5)
    return dict(part.split("=", 1) for part in said.split() if "=" in part)

  def wait(self, done):
    """Waits until `done` holds."""
    until = time.monotonic() + LONGEST
    while not done():
      assert time.monotonic() < until, self.log.read_text()
      time.sleep(0.2)

  def has_ended(self):
    states = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")
    return self.describe()["JobState"] not in states

  def wait_for_restart(self, number):
    self.wait(lambda: self.describe()["Restarts"] == str(number))

  def limit(self, minutes):
    self._call("scontrol", "update", f"JobId={self.number}", f"TimeLimit={minutes}")

  @staticmethod
  def count_checkpoints(work):
    """The step of the newest checkpoint of the seed model; 0 if there is none."""
    found = work.glob("seed*/checkpoints/*/whole.json")
    steps = [path.parent.name for path in found]
    return max((int(step) for step in steps if step.isdigit()), default=0)

  def kill_a_task(self):
    """SIGKILL of the second task, as of one that ran out of memory."""
    marks = {f"SLURM_JOB_ID={self.number}".encode(), b"SLURM_PROCID=1"}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
      try:
        environment = set((path / "environ").read_bytes().split(b"\0"))
      except OSError:
        continue  # it has ended, or is another user's
      if marks <= environment and b"mllm_selector" in (path / "cmdline").read_bytes():
        os.kill(int(path.name), signal.SIGKILL)
        return
    raise AssertionError("the second task was not found")


def test_a_job_killed_and_stopped_before_its_limit_ends_as_an_unbroken_one(
  node, tmp_path
):
  base = tiny.make_base(tmp_path / "base")
  training = {"seed.epochs": 120, "seed.save_every": 10, "select.control": False}
  config = write_config(tmp_path / "config.py", base, **training)
  work = tmp_path / "work"

  unbroken = Job(node, tmp_path, config, work)
  unbroken.wait(unbroken.has_ended)
  told = unbroken.describe()
  assert (told["JobState"], told["Restarts"]) == ("COMPLETED", "0")
  wanted = small_run.read_bytes(work)
  assert "arms/kl-25%-seed0/tuned/hf/model.safetensors" in wanted
  work.rename(tmp_path / "unbroken")
  unbroken.log.unlink()

  broken = Job(node, tmp_path, config, work, "--time=60", "--signal=TERM@60")
  broken.wait(lambda: broken.count_checkpoints(work) > 2)
  broken.kill_a_task()
  broken.wait_for_restart(1)
  kept = broken.count_checkpoints(work)
  broken.wait(lambda: broken.count_checkpoints(work) > kept)
  # The signal comes at the next look, at which less than two minutes are left.
  minutes = int(broken.describe()["RunTime"].split(":")[1])
  broken.limit(minutes + 2)
  broken.wait_for_restart(2)
  broken.limit(60)
  broken.wait(broken.has_ended)
  told, said = broken.describe(), broken.log.read_text()
  assert (told["JobState"], told["Restarts"]) == ("COMPLETED", "2"), said
  assert "task 1: Killed" in said and "Exited with exit code 143" in said
  assert "task 0: Terminated" not in said  # the first could save what it had
  found = small_run.read_bytes(work)
  assert sorted(found) == sorted(wanted)
  assert [name for name in wanted if found[name] != wanted[name]] == []


def test_wrong_input_is_not_queued_again(node, tmp_path):
  missing = tmp_path / "missing.py"
  job = Job(node, tmp_path, missing, tmp_path / "work")
  job.wait(job.has_ended)
  told = job.describe()
  assert (told["JobState"], told["ExitCode"]) == ("FAILED", "2:0")
  assert told["Restarts"] == "0" and "missing.py" in job.log.read_text()
