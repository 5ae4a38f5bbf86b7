"""The command line in processes of its own, to be stopped and killed."""

import contextlib
import functools
import multiprocessing
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import types

import jax

from tests import compiling

ROOT = pathlib.Path(__file__).parents[1]


def write_config(path, base, **overrides):
  """A config file of `small_run.make_config` with these overrides."""
  path.write_text(
    "import sys\n"
    f"sys.path.insert(0, {str(ROOT)!r})\n"
    "from tests import small_run\n"
    "def get_config():\n"
    f"  return small_run.make_config({str(base)!r}, **{overrides!r})\n"
  )
  return path


def start(folder, config, *arguments):
  """The command on the workdir; its standard error is a pipe."""
  command = [sys.executable, "-m", "mllm_selector_jax.main", *arguments]
  command += [f"--config={config}", f"--workdir={folder}"]
  environment = {
    **os.environ,
    "XLA_FLAGS": compiling.QUICK,
    "PYTHONPATH": str(ROOT),
    "JAX_COMPILATION_CACHE_DIR": str(config.parent / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  return subprocess.Popen(
    command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
  )


class Forked:
  """The command in a fork of a process that has imported everything.

  It saves the seconds that a start takes, of which one run needs many. What
  it says goes to a file.

  Args:
    folder: the workdir.
    config: a config file.
    arguments: the command and its flags.
    place: the folder that it works in, for relative paths.
  """

  def __init__(self, folder, config, *arguments, place=None):
    handle, name = tempfile.mkstemp(suffix=".txt", dir=config.parent)
    os.close(handle)
    self._said = pathlib.Path(name)
    where = [f"--config={config}", f"--workdir={folder}"]
    command = [*arguments[:1], *where, *arguments[1:]]  # keys come after the config
    compiled = config.parent / "compiled"
    self._process = _server().Process(
      target=_run, args=(command, name, compiled, place)
    )
    with _no_main():
      self._process.start()

  def kill(self):
    self._process.kill()

  def send(self, number):
    """A signal; none if it has just ended."""
    with contextlib.suppress(ProcessLookupError):
      os.kill(self._process.pid, number)

  def poll(self):
    """The exit status, None while it runs; as subprocess has it."""
    return self._process.exitcode

  def end(self, seconds):
    """The exit status and what was said; it must end within so many seconds."""
    self._process.join(seconds)
    status = self._process.exitcode
    if status is None:
      self.kill()
      raise AssertionError(f"it runs after {seconds} s: {self.said()}")
    return status, self.said()

  def said(self):
    return self._said.read_text(errors="replace")


@functools.cache
def _server():
  """Forks from a process of its own, without devices and without threads."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["tests.preloaded"])
  return context


@contextlib.contextmanager
def _no_main():
  """Else a fork begins by running the script that asks for it, pytest's, say."""
  main = sys.modules["__main__"]
  sys.modules["__main__"] = types.ModuleType("__main__")
  try:
    yield
  finally:
    sys.modules["__main__"] = main


def _run(command, said, compiled, place):
  if place is not None:
    os.chdir(place)
  with open(said, "w") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  os.environ["XLA_FLAGS"] = compiling.QUICK
  from mllm_selector_jax import main

  jax.config.update("jax_compilation_cache_dir", str(compiled))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  main.main(["mllm-selector", *command])


def fork_many(count, folder, config, *arguments):
  """The same command in several processes that make one run."""
  return fork_each(folder, config, *[arguments] * count)


def fork_each(folder, config, *arguments, places=None):
  """Processes that make one run, each with arguments (and a folder) of its own."""
  meeting = [f"--coordinator=127.0.0.1:{free_port()}"]
  meeting.append(f"--num_processes={len(arguments)}")
  places = places or [None] * len(arguments)
  return [
    Forked(folder, config, *own, *meeting, f"--process_id={number}", place=place)
    for number, (own, place) in enumerate(zip(arguments, places, strict=True))
  ]


def free_port():
  with socket.socket() as bound:
    bound.bind(("127.0.0.1", 0))
    return bound.getsockname()[1]


def wait_for(path, *processes):
  """Waits until the path is there; it must come before any process ends."""
  while not path.exists():
    for process in processes:
      assert process.poll() is None, process
    time.sleep(0.002)
