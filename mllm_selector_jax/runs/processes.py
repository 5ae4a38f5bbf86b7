"""Several processes as one run: joined before anything else, ended together.

Each is started with the same command line but for its number. If one dies, the
others end too, within `LOST` seconds: what they wait for never comes. SIGTERM and
SIGINT end a process wherever it waits, see `interrupts.listen`.
"""

import contextlib
import faulthandler
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.runs import interrupts, peers
from mllm_selector_jax.types import InputError, RunError

AUTO = "auto"  # --coordinator: the cluster says who and where the processes are
JOIN = 300  # seconds that the first process is waited for
LOST = 60  # seconds without a sign of life after which a process is taken for dead
HEARING = 1.0  # seconds between questions whether another process has failed
# Seconds that a process which ends without success waits for the others to end, too:
# they are connected to the first one, and are aborted when it is gone.
LEAVING = 5.0
STOPPING = 8.0  # for the first one, where it was stopped: see interrupts.PATIENCE

# What a collective or the coordinator says when another process is gone.
_GONE = re.compile(
  r"Gloo|NCCL.*(abort|remote)|coordination service|coordination_service"
  r"|Connection (reset|closed|refused)|Socket closed|stopped sending heartbeats"
)


_leaving = threading.Event()  # this process is about to end by itself
_told = threading.Event()  # or because another one has told why it ends


def join(
  coordinator: str | None,
  count: int | None,
  number: int | None,
  timeout: int = JOIN,
) -> None:
  """Makes this process one of a run of several; nothing where no flag is given.

  Args:
    coordinator: host:port, on which the first process listens; "auto" where the
      cluster (a TPU slice, SLURM, Kubernetes) tells all three.
    count: of the processes.
    number: of this one, from 0.
    timeout: seconds that the others are waited for.

  Raises:
    InputError: the flags are not whole, do not fit each other, or name a port of
      this host that is taken.
    RunError: jax could not join them. Where the others do not come
      in time, the process ends with a message and status 1.
  """
  if coordinator == AUTO:
    return _join_cluster(count, number, timeout)
  given = {
    "--coordinator=HOST:PORT": coordinator,
    "--num_processes=N": count,
    "--process_id=I": number,
  }
  missing = [flag for flag, value in given.items() if value is None]
  if len(missing) == len(given):
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
    f" {count}, with the same --coordinator: a port of the first one's host that is"
    " free and that the others reach."
  )
  interrupts.listen(f"process {number} of {count}", number == 0, tell)
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

  # jax's own handler of SIGTERM would take the place of ours, and ends nothing.
  jax.config.update("jax_enable_preemption_service", False)
  with interrupts.at_once():
    jax.distributed.initialize(
      initialization_timeout=2 * timeout,
      heartbeat_timeout_seconds=LOST,
      shutdown_timeout_seconds=LOST,
      **arguments,
    )
  faulthandler.enable()  # where jax ends a process, its log gets the stacks
  threading.Thread(target=_hear, name="peers", daemon=True).start()


def tell(text: str, status: int) -> None:
  """Tells the other processes why this one ends; they end, too, with its status."""
  if peers.are_joined():
    peers.publish(json.dumps([text, status]))


def _hear() -> None:
  """Ends this process when another one has told why it ends.

  Where all find the same fault, each says so itself.
  """
  while not _leaving.wait(HEARING):
    text = peers.published()
    if text is None or _leaving.wait(HEARING):
      continue
    _told.set()
    said, status = json.loads(text)
    print(said, file=sys.stderr, flush=True)
    peers.end_together(LEAVING)
    os._exit(status)


def leave_to_others() -> None:
  """Does not return where another process has told why all end.

  What else goes wrong now goes wrong because of that.
  """
  while _told.is_set():
    time.sleep(1)


def _check_port(coordinator: str) -> None:
  """Refuses a port that is taken, on which jax would crash."""
  port = int(coordinator.rpartition(":")[2])
  try:
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as tried:
      tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      tried.bind(("", port))
  except (OSError, OverflowError) as error:
    raise InputError(
      f"--coordinator={coordinator}: this process cannot listen on port {port}"
      f" ({error}); give a free one to all processes."
    ) from error


@contextlib.contextmanager
def _patience(seconds: int, text: str) -> Iterator[None]:
  """Ends the process with a message if the block takes longer.

  jax would abort it then, with a stack of C++ instead of an exception.
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
      " tells both."
    )
  text = "the processes of the cluster did not meet"
  interrupts.listen("this process", False, tell)
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
  number, count = peers.place()
  interrupts.listen(f"process {number} of {count}", number == 0, tell)


def check_devices(wanted: int | None) -> None:
  """Sees that a launcher's processes got the devices that it asked for.

  Raises:
    InputError: there are more or fewer, in all processes.
  """
  if wanted is None:
    return
  import jax

  if jax.device_count() != wanted:
    raise InputError(
      f"--num_devices={wanted}, and {jax.device_count()} were found, on"
      f" {jax.process_count()} hosts or tasks ({jax.local_device_count()} on this"
      " one). Look at how many devices each task is given."
    )


def name() -> str:
  """How a message of one of several processes begins; "" where it is alone."""
  number, count = peers.place()
  return "" if count == 1 else f"process {number} of {count}: "


def is_lost(error: BaseException) -> bool:
  """Whether this process ended because another one is gone."""
  return peers.are_joined() and bool(_GONE.search(str(error)))


def leave(status: int) -> None:
  """Ends the process: after the others, or without them if anything went wrong."""
  _leaving.set()
  if peers.are_joined():
    if status:
      sys.stdout.flush()
      sys.stderr.flush()
      stopped = status in interrupts.STATUS.values() and peers.is_first_process()
      peers.end_together(STOPPING if stopped else LEAVING)
      os._exit(status)  # an exit would wait for those that wait for this one
    import jax

    jax.distributed.shutdown()
  sys.exit(status)
