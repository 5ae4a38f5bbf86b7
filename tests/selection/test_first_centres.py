"""The first centres of k-means: where they lie, and that they differ."""

import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.selection.first_centres import choose_first


def choose(clusters, sample, seed=0):
  return np.asarray(choose_first(clusters, jnp.asarray(sample), np.uint32(seed)))


def make_clouds(count, each=30, width=8):
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(count, width)) * 10
  order = rng.permutation(count * each)
  sample = np.repeat(centres, each, 0) + rng.normal(size=(count * each, width)) / 10
  return sample[order].astype(np.float32), (order // each)


def test_every_cloud_gets_one_centre():
  sample, cloud = make_clouds(20)
  picked = choose(20, sample)
  assert picked[0] == 0
  assert sorted(cloud[picked].tolist()) == list(range(20))


def test_they_are_better_than_random_rows():
  rng = np.random.default_rng(1)
  sample = rng.normal(size=(800, 4)).astype(np.float32)

  def inertia(places):
    squared = np.square(sample[:, None] - sample[places][None]).sum(-1)
    return squared.min(1).sum()

  ours = np.mean([inertia(choose(30, sample, seed)) for seed in range(5)])
  drawn = np.mean([inertia(rng.permutation(800)[:30]) for _ in range(20)])
  assert ours < 0.9 * drawn


def test_the_seed_decides():
  sample, _ = make_clouds(4)
  one, again, other = (choose(12, sample, seed).tolist() for seed in (0, 0, 1))
  assert one == again
  assert one != other


@pytest.mark.parametrize("clusters", [1, 2, 9])
def test_equal_rows_are_picked_without_end(clusters):
  picked = choose(clusters, np.ones((9, 4), np.float32))
  assert picked.shape == (clusters,)
  assert ((picked >= 0) & (picked < 9)).all()
