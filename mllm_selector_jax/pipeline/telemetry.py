"""Reports the progress of a training: console lines, JSONL files and trackers.

The files are in `logs/<stage>/` of the workdir. They hold times, which differ between
runs, and are therefore not part of any artifact.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from mllm_selector_jax.pipeline import trackers
from mllm_selector_jax.runs import peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.training import peaks
from mllm_selector_jax.training.loop import Observed

LINES_EVERY = 30.0  # seconds between lines on the console


@contextlib.contextmanager
def watch(run: Run, title: str, steps: int) -> Iterator[Callable[[Observed], None]]:
  """Open the logs of a training, and yield the observer of its steps.

  Args:
    run: The invocation.
    title: Title of the training, such as "tune main".
    steps: How many steps the training has.

  Raises:
    InputError: The package of a tracker of `log.trackers` is not installed.
  """
  peak = peaks.peak_flops(jax.devices()[0])
  peak = peak and peak * jax.device_count()
  path = run.workdir.logs / title.replace(" ", "-") / "steps.jsonl"
  window: list[Observed] = []
  spoken = time.monotonic()

  def speak():
    if window:
      run.say(describe(title, steps, window, peak))
      window.clear()

  def observe(observed: Observed, log: trackers.Log) -> None:
    nonlocal spoken
    line = {**observed.metrics, **rates([observed], peak)}
    line["compiling"] = observed.compiling
    if peers.is_first_process():
      _append(path, line)
    step = int(observed.metrics["step"])
    log({name: line[name] for name in line if name != "step"}, step)
    window.append(observed)
    if time.monotonic() - spoken >= LINES_EVERY:
      spoken = time.monotonic()
      speak()

  with trackers.track(run, title) as log:
    try:
      yield lambda observed: observe(observed, log)
    finally:
      speak()


def rates(window: list[Observed], peak: float | None) -> dict[str, float | None]:
  """Compute the mean rates of some steps.

  Args:
    window: The steps.
    peak: Published peak of all devices together, in FLOP/s; None if it is not known.

  Returns:
    A dict with these entries. "seconds": duration of the steps. "tokens_per_second".
    "mfu": model FLOPs utilisation, a share of the peak. "padding": padding as a share
    of all token positions. "waiting": share of the time that was spent waiting for
    input.
  """
  seconds = sum(step.seconds for step in window)
  tokens = sum(step.work.tokens for step in window)
  flops = sum(step.work.flops for step in window)
  return {
    "seconds": seconds,
    "tokens_per_second": tokens / seconds,
    "mfu": flops / seconds / peak if peak else None,
    "padding": 1 - tokens / sum(step.work.places for step in window),
    "waiting": sum(step.waited for step in window) / seconds,
  }


def describe(title: str, steps: int, window: list[Observed], peak: float | None) -> str:
  """Format a console line: the last step, and the rates since the previous line."""
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
  # A failed log must not end a training. If the disk is full, the checkpoint says so.
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
      file.write(json.dumps(line) + "\n")
