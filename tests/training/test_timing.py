"""How long each step of a training took, as the real loop tells it."""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.pipeline import telemetry
from mllm_selector_jax.training import loop, timing
from mllm_selector_jax.training.optimizer_options import OptimizerOptions
from mllm_selector_jax.types import Stopped
from tests.training import toy

# Wide enough that a step takes longer than whatever is done around it.
CONFIG = dataclasses.replace(
  toy.CONFIG, decoder=dataclasses.replace(toy.CONFIG.decoder, width=128, mlp=1024)
)
STEPS = 10


def observe(batches, folder=None, save_every=0, stop_after=math.inf):
  """What the loop tells of its steps, and the seconds that it took."""
  seen = []
  begin = time.perf_counter()
  try:
    loop.train(
      CONFIG,
      mllm.init(CONFIG, 0),
      batches,
      STEPS,
      loop.LoopOptions(OptimizerOptions(1e-3, warmup=0.1), save_every=save_every),
      sharding.make_mesh(1, devices=jax.devices()[:1]),
      folder=folder,
      observe=seen.append,
      stopped=lambda: len(seen) >= stop_after,
    )
  except Stopped:
    pass
  return seen, time.perf_counter() - begin


def make_batches():
  batches = toy.make_batches(count=480, batch=48, epochs=1, row_length=64)
  assert len(batches) == STEPS
  return batches


def check_rates(seen):
  """No step is told to be many times as fast as the others.

  Slower ones may be: other programs run beside the test.
  """
  rates = [telemetry.rates([one], 1e12) for one in seen]
  for name in ("tokens_per_second", "mfu"):
    found = np.array([rate[name] for rate in rates])
    assert found.max() < 5 * np.median(found), found
  assert all(0 <= rate["waiting"] <= 1 for rate in rates)


def test_the_last_step_is_as_fast_as_the_others():
  seen, wall = observe(make_batches().to_grain())
  assert [one.metrics["step"] for one in seen] == list(range(1, STEPS + 1))
  check_rates(seen)
  first, *others = (one.compiling for one in seen)
  assert first > 0 and set(others) == {0.0}
  assert first + sum(one.seconds for one in seen) < wall


def test_so_are_steps_before_a_checkpoint_and_after_a_resumption(tmp_path):
  batches = make_batches()
  before, _ = observe(batches.to_grain(), tmp_path, save_every=3, stop_after=5)
  after, wall = observe(batches.to_grain(), tmp_path, save_every=3)
  steps = [one.metrics["step"] for one in (*before, *after)]
  assert steps == list(range(1, STEPS + 1)) and len(before) >= 5 and len(after) >= 2
  check_rates([*before, *after])
  # Compiled again, and neither that nor restoring counts as the step's time.
  assert after[0].compiling > 0
  assert after[0].seconds < wall - after[0].compiling


class Slow:
  """Batches that take their time, one after the other."""

  def __init__(self, batches, seconds):
    self._batches, self._seconds = batches, seconds

  def __iter__(self):
    for batch in self._batches:
      time.sleep(self._seconds)
      yield batch


def test_a_step_has_the_wait_for_its_own_batch():
  seen, _ = observe(Slow(make_batches(), 0.2))
  for one in seen:
    assert one.seconds > one.waited > 0
  # The devices work on the step before for a part of that time.
  assert np.median([one.waited for one in seen]) > 0.02
  assert seen[0].waited == pytest.approx(0.2, abs=0.1)
  assert telemetry.rates(seen, None)["waiting"] == pytest.approx(
    sum(one.waited for one in seen) / sum(one.seconds for one in seen)
  )


@pytest.mark.parametrize(
  ("times", "seconds", "waited"),
  [
    # Before, asked, ready, end: the batch was there before the devices were free.
    ((10.0, 8.0, 9.0, 13.0), 3.0, 0.0),
    # They waited for it from when they were free.
    ((10.0, 8.0, 11.0, 13.0), 3.0, 1.0),
    # It was asked for a second after they were free: a checkpoint was saved.
    ((10.0, 11.0, 12.5, 13.0), 2.0, 1.5),
    # The first step.
    ((-math.inf, 1.0, 1.5, 4.0), 3.0, 0.5),
  ],
)
def test_a_step_begins_when_devices_and_loop_are_free(times, seconds, waited):
  assert timing.measure(*times) == (seconds, waited, times[-1])


def test_the_end_of_a_step_is_noted_though_nobody_reads_it():
  read_end = timing.note_end(jnp.ones(3) + 1)
  time.sleep(0.3)
  later = time.perf_counter()
  assert read_end() < later - 0.1
