"""Starts a run on this machine, as one process or as several.

  python launch/local.py [flags] -- [command] --config=FILE --workdir=DIR ...

One process uses all GPUs, or the CPU if there is none. `--processes=N` rehearses a run
on several hosts: it starts N processes on the CPU, which connect as hosts would. When
one process fails, the others are stopped, and the launcher exits with its status.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time

from absl import app, flags

# Settings for GPUs; a variable that is already set is not changed.
GPU_ENVIRONMENT = {
  "JAX_OPTIMIZATION_LEVEL": "O1",
  "NCCL_NVLS_ENABLE": "1",
  "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9",
}
PATIENCE = 90  # seconds that stopped processes have to save and exit

_PROCESSES = flags.DEFINE_integer("processes", 1, "Number of processes.", lower_bound=1)
_DEVICES = flags.DEFINE_integer(
  "devices", 1, "CPU devices per process, if there are several.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_bool(
  "dry_run", False, "Print the commands without running them."
)


def plan(
  arguments: list[str], processes: int, devices: int, port: int
) -> list[tuple[dict[str, str], list[str]]]:
  """Plan the processes of a run.

  Args:
    arguments: Arguments of `mllm-selector`.
    processes: Number of processes.
    devices: CPU devices of each, if there are several processes.
    port: Port at which the first of several processes listens.

  Returns:
    For each process, environment variables to add and the command.
  """
  command = [sys.executable, "-m", "mllm_selector_jax.main", *arguments]
  if processes == 1:
    return [
      ({k: v for k, v in GPU_ENVIRONMENT.items() if k not in os.environ}, command)
    ]
  flag = f"--xla_force_host_platform_device_count={devices}"
  environment = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip(),
  }
  meeting = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
  return [
    (environment, [*command, *meeting, f"--process_id={number}"])
    for number in range(processes)
  ]


def start(planned: list[tuple[dict[str, str], list[str]]]) -> int:
  """Run processes to their end.

  Returns:
    The exit status of the first process that failed, or 0.
  """
  running = [
    subprocess.Popen(command, env={**os.environ, **environment})
    for environment, command in planned
  ]

  passed = set()  # signals that were passed on; a second one skips saving

  def pass_on(number, _):
    passed.add(number)
    for process in running:
      if process.poll() is None:
        process.send_signal(number)

  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, pass_on)
  deadline = None
  while any(process.poll() is None for process in running):
    time.sleep(0.1)
    if deadline is None and any(process.poll() for process in running):
      status = next(process.returncode for process in running if process.poll())
      deadline = time.monotonic() + PATIENCE
      if not passed:
        pass_on(signal.SIGTERM, None)
    elif deadline is not None and time.monotonic() > deadline:
      for process in running:
        process.kill()
  if deadline is None:
    status = next((process.returncode for process in running if process.returncode), 0)
  return status if status >= 0 else 128 - status


def free_port() -> int:
  with socket.socket() as bound:
    bound.bind(("127.0.0.1", 0))
    return bound.getsockname()[1]


def main(argv: list[str]) -> None:
  planned = plan(argv[1:], _PROCESSES.value, _DEVICES.value, free_port())
  if _DRY_RUN.value:
    for environment, command in planned:
      print(
        *(f"{k}={shlex.quote(v)}" for k, v in environment.items()), shlex.join(command)
      )
    return
  sys.exit(start(planned))


if __name__ == "__main__":
  app.run(main)
