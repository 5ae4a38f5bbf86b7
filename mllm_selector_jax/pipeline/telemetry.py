"""How training goes: lines for people, JSONL and TensorBoard.

Its files lie in `logs/<stage>/` of the workdir. They hold times, which no two runs
share, and so are no part of an artifact.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from mllm_selector_jax.pipeline.board import import_board
from mllm_selector_jax.runs import peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.training import peaks
from mllm_selector_jax.training.loop import Observed

LINES_EVERY = 30.0  # seconds between lines on the console


@contextlib.contextmanager
def watch(run: Run, title: str, steps: int) -> Iterator[Callable[[Observed], None]]:
  """Gives what a training loop tells its steps to.

  Args:
    run: the invocation.
    title: of the training, such as "tune main".
    steps: how many there are.

  Raises:
    InputError: TensorBoard is wanted, and its writer is not installed.
  """
  writer = _open_board(run, title)
  peak = peaks.peak_flops(jax.devices()[0])
  peak = peak and peak * jax.device_count()
  path = run.workdir.logs / title.replace(" ", "-") / "steps.jsonl"
  window: list[Observed] = []
  spoken = time.monotonic()

  def speak():
    if window:
      run.say(describe(title, steps, window, peak))
      window.clear()

  def observe(observed: Observed) -> None:
    nonlocal spoken
    line = {**observed.metrics, **rates([observed], peak)}
    line["compiling"] = observed.compiling
    if peers.is_first_process():
      _append(path, line)
    if writer is not None:
      for name, value in line.items():
        if name != "step" and value is not None:
          writer.add_scalar(name, value, line["step"])
    window.append(observed)
    if time.monotonic() - spoken >= LINES_EVERY:
      spoken = time.monotonic()
      speak()

  try:
    yield observe
  finally:
    speak()
    if writer is not None:
      writer.close()


def rates(window: list[Observed], peak: float | None) -> dict[str, float | None]:
  """What a few steps together come to.

  Args:
    window: the steps.
    peak: FLOP/s of all devices at their published best; None where not known.

  Returns:
    seconds; tokens a second; mfu, the share of the peak; padding, as a share of the
    places; waiting, the share of the time in which input was waited for.
  """
  seconds = sum(one.seconds for one in window)
  tokens = sum(one.work.tokens for one in window)
  flops = sum(one.work.flops for one in window)
  return {
    "seconds": seconds,
    "tokens_per_second": tokens / seconds,
    "mfu": flops / seconds / peak if peak else None,
    "padding": 1 - tokens / sum(one.work.places for one in window),
    "waiting": sum(one.waited for one in window) / seconds,
  }


def describe(title: str, steps: int, window: list[Observed], peak: float | None) -> str:
  """The line for people: the last step, and the rates since the line before."""
  last, rate = window[-1].metrics, rates(window, peak)
  parts = [
    f"{title}: step {last['step']:,} of {steps:,}: loss {last['loss']:.4f}",
    f"gradient norm {last['grad_norm']:.3g}",
    f"learning rate {last['learning_rate']:.3g}",
    f"{rate['tokens_per_second']:,.0f} tokens/s",
    *([] if rate["mfu"] is None else [f"MFU {rate['mfu']:.1%}"]),
    f"{rate['padding']:.1%} padding",
    f"{rate['waiting']:.1%} waiting for input",
  ]
  return ", ".join(parts)


def _append(path: Path, line: dict[str, Any]) -> None:
  # A log must not end a training; what follows needs the disk, and says so.
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
      file.write(json.dumps(line) + "\n")


def _open_board(run: Run, title: str) -> Any:
  """TensorBoard's writer, where one is wanted; older steps of the same run stay."""
  if not run.cfg.log.tensorboard:
    return None
  board = import_board()
  if not peers.is_first_process():
    return None
  folder = run.workdir.logs / title.replace(" ", "-")
  return board.SummaryWriter(str(folder))
