"""From a recipe and rows to steps."""

import types

import numpy as np
import pytest

from mllm_selector_jax.configs import default
from mllm_selector_jax.data.packing import assembly, loader
from mllm_selector_jax.models import mllm
from mllm_selector_jax.pipeline import fine_tune
from mllm_selector_jax.training import train_step
from tests.training import toy


@pytest.fixture(scope="module")
def samples():
  return toy.random_samples(40)


def lay_out(samples, **changes):
  section = default.get_config().tune
  section.batch, section.row_length, section.epochs = 6, 32, 2
  for name, value in changes.items():
    section[name] = value
  pool = types.SimpleNamespace(
    tokens=np.array([len(one.tokens) for one, _ in samples.values()]),
    supervised=np.array([int(one.supervised.sum()) for one, _ in samples.values()]),
    turns=np.ones(len(samples), int),
    has_image=np.array([len(tiles) > 0 for _, tiles in samples.values()]),
    tiles=np.array([len(tiles) for _, tiles in samples.values()]),
    taps=np.zeros(len(samples), int),
  )
  rows = np.arange(1, len(samples))
  return pool, fine_tune.lay_out(section, pool, rows, 5, toy.CONFIG.tiling, 2)


def losses(samples, laid, count):
  params, steps = mllm.init(toy.CONFIG, 0), laid.steps[:count]
  return [
    float(train_step.batch_loss(toy.CONFIG, params, batch))
    for batch, _ in (
      assembly.assemble(
        loader.as_trees(one), samples, laid.shapes[which], toy.CONFIG.image_token
      )
      for which, one in zip(laid.which, steps, strict=False)
    )
  ]


def test_grouped_steps_are_whole_and_cost_the_loss_of_their_samples(samples):
  """The loss of a step hangs on its samples, not on where they are packed."""
  pool, grouped = lay_out(samples, group_by_modality_length=True)
  steps, mixed = grouped.steps, lay_out(samples)[1].steps
  assert len(steps) == len(mixed) == 14 and steps != mixed
  kinds = [{bool(pool.has_image[i]) for row in one for i in row} for one in steps]
  assert sum(len(kind) == 1 for kind in kinds) >= 10
  _, longer = lay_out(samples, group_by_modality_length=True, row_length=96)
  flat = [
    [sorted(i for row in one for i in row) for one in laid.steps]
    for laid in (grouped, longer)
  ]
  assert flat[0] == flat[1] and steps != longer.steps
  np.testing.assert_allclose(
    losses(samples, grouped, 3), losses(samples, longer, 3), rtol=1e-5
  )


def test_a_batch_that_leaves_devices_without_rows_is_told(samples):
  _, laid = lay_out(samples, batch=1)
  assert (laid.largest.rows, laid.largest.shards) == (2, 2)
  assert fine_tune.find_idle(laid) == 1
  _, laid = lay_out(samples, batch=6)
  assert fine_tune.find_idle(laid) == 0
