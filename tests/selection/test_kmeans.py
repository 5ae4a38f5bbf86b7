"""k-means against scikit-learn, and what it promises beyond it."""

import contextlib

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from sklearn.cluster import KMeans

from mllm_selector_jax.selection import draws, kmeans
from mllm_selector_jax.selection.overseer import Nothing
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked
from mllm_selector_jax.types import InputError


def make_blobs(rows=3000, width=16, count=10, spread=0.3, seed=0):
  rng = np.random.default_rng(seed)
  centres = rng.normal(size=(count, width)) * 3
  labels = rng.integers(0, count, rows)
  noise = rng.normal(size=(rows, width)) * spread
  return (centres[labels] + noise).astype(np.float32), labels


def oracle(embeddings, centres):
  """Nearest centres and inertia in plain numpy, float64."""
  difference = embeddings[:, None].astype(np.float64) - centres[None].astype(np.float64)
  squared = np.square(difference).sum(-1)
  return squared.argmin(1), squared.min(1).sum()


def test_finds_blobs():
  embeddings, labels = make_blobs()
  found = kmeans.kmeans(embeddings, 10, normalise=False)
  pairs = set(zip(labels.tolist(), found.labels.tolist(), strict=True))
  assert len(pairs) == 10


@pytest.mark.parametrize("clusters", [10, 37])
def test_inertia_is_as_low_as_scikit_learns(clusters):
  embeddings, _ = make_blobs(spread=2.0)
  found = kmeans.kmeans(embeddings, clusters, normalise=False)
  labels, inertia = oracle(embeddings, found.centres)
  assert np.mean(labels == found.labels) > 0.999
  assert found.inertia == pytest.approx(inertia, rel=1e-4)
  theirs = [
    KMeans(clusters, n_init=1, random_state=seed).fit(embeddings).inertia_
    for seed in range(5)
  ]
  assert found.inertia < 1.01 * np.median(theirs)


def test_normalised_rows_cluster_by_direction():
  embeddings, _ = make_blobs(count=5)
  scale = np.random.default_rng(1).uniform(0.1, 10, (3000, 1)).astype(np.float32)
  plain = kmeans.kmeans(embeddings, 5)
  scaled = kmeans.kmeans(embeddings * scale, 5)
  np.testing.assert_array_equal(plain.labels, scaled.labels)
  unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
  assert plain.inertia == pytest.approx(oracle(unit, plain.centres)[1], rel=1e-4)


def test_any_number_of_devices_and_any_order_of_rows_give_the_same(monkeypatch):
  embeddings, _ = make_blobs(rows=5000, spread=2.0)
  key = np.random.default_rng(2).integers(0, 2**64, 5000, dtype=np.uint64)
  clusters = 16
  # Chunks of 512 rows, so that every device has one.
  monkeypatch.setattr(kmeans, "CHUNK_DISTANCES", 512 * clusters)
  several = kmeans.kmeans(embeddings, clusters, key)
  one = kmeans.kmeans(embeddings, clusters, key, devices=jax.devices()[:1])
  order = np.random.default_rng(3).permutation(5000)
  with jax.set_mesh(jax.make_mesh((8,), ("data",), (AxisType.Auto,))):
    moved = kmeans.kmeans(embeddings[order], clusters, key[order])
  for other, labels in ((one, several.labels), (moved, several.labels[order])):
    np.testing.assert_array_equal(other.labels, labels)
    np.testing.assert_array_equal(other.centres, several.centres)
    assert other.inertia == several.inertia


def test_another_seed_starts_elsewhere_and_ends_about_as_low():
  embeddings, _ = make_blobs(spread=2.0)
  one, other = (kmeans.kmeans(embeddings, 12, rng=seed) for seed in (0, 1))
  assert not np.array_equal(one.labels, other.labels)
  assert one.inertia == pytest.approx(other.inertia, rel=0.05)


def test_an_empty_cluster_starts_again_on_the_farthest_row(monkeypatch):
  embeddings, _ = make_blobs(count=4, spread=0.1)
  # All centres begin on one row, so that all but one are empty, and stay so in a pass
  # of a single part.
  monkeypatch.setattr(kmeans, "MOST_PARTS", 1)
  monkeypatch.setattr(
    kmeans._Chunks,
    "first_centres",
    lambda self, count, rng: np.repeat(self.rows(np.array([0])), count, 0),
  )
  found = kmeans.kmeans(embeddings, 4, normalise=False)
  assert np.bincount(found.labels).min() > 500
  assert found.inertia / len(embeddings) < 16 * 0.1**2 * 1.1


def test_fewer_different_rows_than_clusters_leave_no_empty_cluster():
  embeddings = np.repeat(np.eye(3, dtype=np.float32), 20, 0)
  found = kmeans.kmeans(embeddings, 8)
  assert np.bincount(found.labels).tolist() == [20, 20, 20]
  assert found.centres.shape == (3, 3) and found.inertia < 1e-9


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_few_rows(rows):
  embeddings = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
  found = kmeans.kmeans(embeddings, 50)
  assert len(set(found.labels.tolist())) == rows
  assert kmeans.kmeans(embeddings, 1).labels.tolist() == [0] * rows


def test_all_rows_equal_or_zero():
  for value in (0.0, 3.0):
    found = kmeans.kmeans(np.full((20, 4), value, np.float32), 5)
    assert found.labels.tolist() == [0] * 20 and np.isfinite(found.centres).all()


def test_an_embedding_that_is_not_finite_is_named():
  embeddings = np.ones((20, 4), np.float32)
  embeddings[13, 2] = np.nan
  with pytest.raises(InputError, match="line 13 of the scores"):
    kmeans.kmeans(embeddings, 3)


def test_default_number_of_clusters():
  cases = {1: 1, 9: 1, 16: 2, 80: 4, 639: 19, 1600: 50, 20_000: 50, 40_000: 200}
  cases[10**6] = 1000
  assert {rows: kmeans.default_clusters(rows) for rows in cases} == cases


def test_centres_move_after_each_part_of_a_pass(monkeypatch):
  """Plain numpy, one part of the drawn order after the other."""
  monkeypatch.setattr(kmeans, "MOST_PARTS", 4)
  embeddings, _ = make_blobs(rows=2048, count=7, spread=2.0)
  key = np.arange(2048, dtype=np.uint64)
  drawn = embeddings[np.argsort(draws.draw(0, key, "k-means"), kind="stable")]
  start = drawn[[0, 5, 11, 17, 23, 29]]
  monkeypatch.setattr(
    kmeans._Chunks,
    "first_centres",
    lambda self, count, rng: start - self.mean[None, :],
  )
  found = kmeans.kmeans(
    embeddings, 6, normalise=False, tolerance=0.0, most_iterations=4
  )
  centres = start.astype(np.float64)
  label = np.full(len(drawn), -1)
  for parts in (4, 2, 1, 1):
    for part in np.split(np.arange(len(drawn)), parts):
      squared = np.square(drawn[part, None] - centres[None]).sum(-1)
      label[part] = squared.argmin(1)
      centres = np.stack([drawn[label == each].mean(0) for each in range(6)])
  np.testing.assert_allclose(found.centres, centres, atol=2e-5)
  assert found.inertia == pytest.approx(oracle(drawn, centres)[1], rel=1e-5)
  assert found.iterations == 4


def test_rows_that_stay_on_disk_give_the_same_clusters(monkeypatch, tmp_path):
  embeddings, _ = make_blobs(rows=1500)
  wanted = kmeans.kmeans(embeddings[::2], 6)
  for number, part in enumerate(np.split(embeddings, [100, 1101])):
    np.save(tmp_path / f"{number}.npy", part)
  parts = [np.load(path, mmap_mode="r") for path in sorted(tmp_path.iterdir())]
  monkeypatch.setattr(kmeans, "HOST_BYTES", 0)  # and are read again in each pass
  found = kmeans.kmeans(Stacked(parts, np.arange(0, 1500, 2)), 6)
  np.testing.assert_array_equal(found.labels, wanted.labels)
  np.testing.assert_array_equal(found.centres, wanted.centres)


def test_a_clustering_goes_on_from_every_pass_and_tells_its_progress():
  embeddings, _ = make_blobs(spread=2.0)
  passes, told = [], []

  class Keeper(Nothing):
    def __init__(self, *made):
      self.made = made

    def read(self):
      return iter(self.made)

    def replace(self, **made):
      passes.append({name: np.array(value) for name, value in made.items()})

  @contextlib.contextmanager
  def watch(title):
    told.append((title, []))
    yield lambda done, total: told[-1][1].append((done, total))

  whole = kmeans.kmeans(embeddings, 12, keeper=Keeper(), watch=watch)
  assert len(passes) == whole.iterations - 1 > 3
  assert [title for title, _ in told][:2] == ["pass 1", "pass 2"]
  assert all(shown[-1] == (3000, 3000) for _, shown in told)
  for made in passes[:3]:
    found = kmeans.kmeans(embeddings, 12, keeper=Keeper(made))
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_array_equal(found.centres, whole.centres)
    assert found[2:] == whole[2:]
