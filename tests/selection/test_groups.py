"""Groups of every kind."""

import numpy as np
import pytest

from mllm_selector_jax.selection import groups
from mllm_selector_jax.types import InputError

SOURCE = np.array(["vqa", "ocr", None, "vqa", "ocr"], dtype=object)
NECESSITY = np.array([0.0, 0.19, 0.5, 0.99, 1.0])


def test_columns():
  found = groups.by_column(SOURCE)
  assert found.names == ("(none)", "ocr", "vqa")
  assert found.index.tolist() == [2, 1, 0, 2, 1]
  assert groups.by_column(np.array([3, 1, 3]), "turns").names == ("turns 1", "turns 3")


def test_strata():
  found = groups.by_necessity(NECESSITY, 5)
  assert found.index.tolist() == [0, 0, 2, 4, 4]
  assert len(found.names) == 5 and found.names[4] == "necessity 0.80-1.00"


def test_products_hold_the_combinations_that_occur():
  found = groups.product(groups.by_column(SOURCE), groups.by_necessity(NECESSITY, 2))
  pairs = [found.names[c] for c in found.index]
  assert pairs[0] == "vqa x necessity 0.00-0.50"
  assert pairs[1] == "ocr x necessity 0.00-0.50"
  assert pairs[4] == "ocr x necessity 0.50-1.00"
  assert len(found.names) == len(set(pairs)) == 5
  assert groups.product(found).index.tolist() == found.index.tolist()


def test_clusters_are_numbered_by_size():
  rng = np.random.default_rng(0)
  embeddings = np.repeat(np.eye(3), [30, 100, 60], 0) + rng.normal(size=(190, 3)) * 0.01
  found = groups.by_embedding(embeddings.astype(np.float32), 3)
  assert np.bincount(found.index).tolist() == [100, 60, 30]
  assert found.names == ("cluster 0", "cluster 1", "cluster 2")
  assert len(groups.by_embedding(embeddings.astype(np.float32)).names) <= 190 // 8


def test_groups_by_name():
  columns = {"source": SOURCE, "turns": np.array([1, 1, 2, 2, 1])}

  def make(form, **more):
    return groups.make_groups(form, columns, NECESSITY, **more)

  assert make("source").names == ("(none)", "ocr", "vqa")
  assert len(make("necessity", strata=3).names) == 3
  assert make("source * turns").names[-1] == "vqa x turns 2"
  embeddings = np.eye(5, dtype=np.float32)
  found = groups.by_embedding(embeddings, 2)
  assert make("kmeans", clusters=lambda: found) is found
  with pytest.raises(InputError, match=r"'colour'; allowed are .* source, turns"):
    make("source*colour")
  with pytest.raises(InputError, match="hold no embeddings"):
    make("kmeans")
