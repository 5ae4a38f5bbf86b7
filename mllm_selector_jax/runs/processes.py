"""Joins several processes to one run before anything else, and ends them together.

All processes are started with the same command line, apart from their number. If one
dies, the others end within `LOST` seconds, since they would wait for it forever.
SIGTERM and SIGINT end a process wherever it waits; see `interrupts.listen`.
"""

import contextlib
import faulthandler
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.runs import interrupts, peers
from mllm_selector_jax.types import InputError, RunError

AUTO = "auto"  # value of --coordinator: the cluster knows all processes
JOIN = 300  # seconds that processes wait for each other when they join
LOST = 60  # seconds without a heartbeat after which a process is taken for dead
HEARING = 1.0  # seconds between two checks whether another process has failed
# Seconds that a process which fails waits for the others to end too. They are connected
# to the first process, and are aborted when it is gone.
LEAVING = 5.0
# The same for the first process if it was stopped; longer than `interrupts.PATIENCE`.
STOPPING = 8.0

# Messages of a collective or the coordinator when another process is gone.
_GONE = re.compile(
  r"Gloo|NCCL.*(abort|remote)|coordination service|coordination_service"
  r"|Connection (reset|closed|refused)|Socket closed|stopped sending heartbeats"
)


_leaving = threading.Event()  # set when this process is about to end by itself
_told = threading.Event()  # set when another process has told why all end
_done = threading.Event()  # set when this process only waits for the others to be done
_ending = threading.Lock()  # taken, and kept, by the thread that ends this process
_said = threading.Lock()  # taken, and kept, by who says why all end


def join(
  coordinator: str | None,
  count: int | None,
  number: int | None,
  timeout: int = JOIN,
) -> None:
  """Joins this process to the others of the run; does nothing without flags.

  If the others do not arrive in time, the process ends with a message and status 1.

  Args:
    coordinator: HOST:PORT at which the first process listens; "auto" if the cluster (a
      TPU slice, SLURM, Kubernetes) provides all three values.
    count: the number of processes.
    number: the number of this process, counted from 0.
    timeout: seconds to wait for the others.

  Raises:
    InputError: a flag is missing, the flags contradict each other, or the port of this
      host is in use.
    RunError: jax could not join the processes.
  """
  if coordinator == AUTO:
    return _join_cluster(count, number, timeout)
  flags = {
    "--coordinator=HOST:PORT": coordinator,
    "--num_processes=N": count,
    "--process_id=I": number,
  }
  missing = [flag for flag, value in flags.items() if value is None]
  if len(missing) == len(flags):
    return
  if missing:
    raise InputError(
      f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: a run"
      " of several processes needs --coordinator, --num_processes and --process_id."
    )
  if not re.fullmatch(r".+:\d{1,5}", coordinator):
    raise InputError(
      f"--coordinator={coordinator}: give HOST:PORT of the first process, for"
      " example 10.0.0.1:1234."
    )
  if count < 1 or not 0 <= number < count:
    raise InputError(
      f"--process_id={number} --num_processes={count}: processes are numbered from 0"
      f" to {max(count, 1) - 1}."
    )
  if count == 1:
    return
  if number == 0:
    _check_port(coordinator)
  text = (
    f"process {number} of {count} did not meet the others at {coordinator}. Start all"
    f" {count}, with the same --coordinator: a free port of the first process's host"
    " that the others can reach."
  )
  interrupts.listen(f"process {number} of {count}", _tell_and_wait)
  try:
    with _patience(timeout, text):
      _initialize(
        timeout,
        coordinator_address=coordinator,
        num_processes=count,
        process_id=number,
        cluster_detection_method="deactivate",
      )
  except RuntimeError as error:
    raise RunError(f"{text} ({str(error).strip().splitlines()[0]})") from error


def _initialize(timeout: int, **arguments: Any) -> None:
  import jax

  # jax's own handler of SIGTERM would replace ours, and does not end the process.
  jax.config.update("jax_enable_preemption_service", False)
  with interrupts.at_once():
    jax.distributed.initialize(
      initialization_timeout=2 * timeout,
      heartbeat_timeout_seconds=LOST,
      shutdown_timeout_seconds=LOST,
      **arguments,
    )
  faulthandler.enable()  # if jax aborts a process, its log gets the stacks
  threading.Thread(target=_hear, name="peers", daemon=True).start()


def tell(text: str, status: int) -> None:
  """Tells the other processes why this one ends, so that they end with its status."""
  if peers.are_joined():
    _said.acquire(blocking=False)  # the caller has said it
    peers.publish(json.dumps([text, status]))


def _tell_and_wait(text: str, status: int) -> None:
  """Tells the others why this process ends, and waits a few seconds for them to end.

  For `interrupts.listen`. The others are connected to the first process, and the
  runtime aborts those that lose the connection.
  """
  tell(text, status)
  _end_together()


def _end_together() -> None:
  """Waits a few seconds for the others to end; for threads beside the main thread."""
  if _done.is_set():
    time.sleep(LEAVING)  # the main thread is waiting for them, and ends the process
  else:
    peers.end_together(LEAVING)


def _hear() -> None:
  """Ends this process when another one has told why it ends.

  It first waits a moment: if all processes find the same fault, each reports it itself.
  """
  while not _leaving.wait(HEARING):
    text = peers.published()
    if text is not None and not _leaving.wait(HEARING):
      _end_as_told(text)


def _end_as_told(text: str) -> None:
  """Ends this process as another one has told; does not return."""
  _told.set()
  with _ending:  # and is never released
    status = _say(text)
    _end_together()
    os._exit(status)


def _say(text: str) -> int:
  """Says what another process has told, unless it was said; returns its status."""
  message, status = json.loads(text)
  if _said.acquire(blocking=False):
    print(message, file=sys.stderr, flush=True)
  return status


def leave_to_others(error: BaseException) -> None:
  """Does not return if another process has told why all end.

  An error in this process is then only a consequence, and should not be reported. It
  may come before the thread that listens has noticed what was told.

  Args:
    error: what ended the work of this process.
  """
  if is_lost(error) and (text := peers.published()) is not None:
    _end_as_told(text)
  while _told.is_set():
    time.sleep(1)


def _check_port(coordinator: str) -> None:
  """Refuses a port that is in use, since jax would crash on it."""
  port = int(coordinator.rpartition(":")[2])
  try:
    family = socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET
    with socket.socket(family) as listener:
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(("", port))
  except (OSError, OverflowError) as error:
    raise InputError(
      f"--coordinator={coordinator}: this process cannot listen on port {port}"
      f" ({error}); give a free one to all processes."
    ) from error


@contextlib.contextmanager
def _patience(seconds: int, text: str) -> Iterator[None]:
  """Ends the process with a message if the block takes longer than this.

  Otherwise jax would abort it with a C++ stack trace instead of an exception.
  """

  def give_up():
    print(f"Error: after {seconds} s {text}", file=sys.stderr, flush=True)
    os._exit(1)

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _join_cluster(count: int | None, number: int | None, timeout: int) -> None:
  if count is not None or number is not None:
    raise InputError(
      "--coordinator=auto takes neither --num_processes nor --process_id; the cluster"
      " provides both."
    )
  text = "the processes of the cluster did not meet"
  interrupts.listen("this process", _tell_and_wait)
  try:
    with _patience(timeout, f"{text}. Start them all."):
      _initialize(timeout)
  except ValueError as error:
    raise InputError(
      "--coordinator=auto: no TPU slice, SLURM job or Kubernetes job was found"
      f" ({str(error).strip().splitlines()[0]}). Give --coordinator=HOST:PORT,"
      " --num_processes and --process_id."
    ) from error
  except RuntimeError as error:
    raise RunError(f"{text} ({str(error).strip().splitlines()[0]}).") from error
  number, count = peers.number_and_count()
  interrupts.listen(f"process {number} of {count}", _tell_and_wait)


def check_devices(num_devices: int | None) -> None:
  """Checks that all processes together have the number of devices that was asked for.

  Raises:
    InputError: there are more or fewer devices; raised in all processes.
  """
  if num_devices is None:
    return
  import jax

  if jax.device_count() != num_devices:
    raise InputError(
      f"--num_devices={num_devices}, but {jax.device_count()} were found, on"
      f" {jax.process_count()} hosts or tasks ({jax.local_device_count()} on this"
      " one). Check how many devices each task is given."
    )


def name() -> str:
  """Returns the prefix of messages of this process; "" if it is the only one."""
  number, count = peers.number_and_count()
  return "" if count == 1 else f"process {number} of {count}: "


def is_lost(error: BaseException) -> bool:
  """Returns whether an error was raised because another process is gone."""
  return peers.are_joined() and bool(_GONE.search(str(error)))


def leave(status: int) -> None:
  """Ends the process with an exit status.

  After success it waits for all others, and takes the status of one that ends otherwise
  meanwhile; a signal ends this wait as `interrupts.listen` says. After anything else it
  waits only for a few seconds. Then signals no longer change the status.
  """
  if peers.are_joined():
    if status:
      _leaving.set()
      sys.stdout.flush()
      sys.stderr.flush()
      stopped = status in interrupts.STATUS.values() and peers.is_first_process()
      peers.end_together(STOPPING if stopped else LEAVING)
      os._exit(status)  # sys.exit would wait for processes that wait for this one
    _wait_for_others()
  for number in interrupts.STATUS:
    signal.signal(number, signal.SIG_IGN)
  sys.exit(status)


def _wait_for_others() -> None:
  """Waits until all processes are done, or ends as one that could not be."""
  import jax

  for number in interrupts.STATUS:
    # Not ignored, which would keep them from `interrupts.listen` too.
    signal.signal(number, lambda *_: None)
  _done.set()
  peers.end_together(peers.LONGEST)
  _leaving.set()
  if (text := peers.published()) is not None:
    os._exit(_say(text))
  jax.distributed.shutdown()
