"""Selections by embeddings that stay on disk are those by embeddings in memory."""

import dataclasses

import numpy as np
import pytest

from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked
from mllm_selector_jax.selection.strategies import STRATEGIES, select
from tests.selection.pools import make_pool

READERS = [name for name, strategy in STRATEGIES.items() if strategy.embeddings]


@pytest.mark.parametrize("name", READERS)
def test_mapped_parts_select_the_same_rows(name, tmp_path):
  scores, groups = make_pool(300)
  for number, part in enumerate(np.split(scores.embeddings, [100, 101])):
    np.save(tmp_path / f"{number}.npy", part)
  parts = [np.load(path, mmap_mode="r") for path in sorted(tmp_path.iterdir())]
  mapped = dataclasses.replace(scores, embeddings=Stacked(parts))
  one = select(scores, groups, 60, 0, SelectOptions(name))
  other = select(mapped, groups, 60, 0, SelectOptions(name))
  np.testing.assert_array_equal(one.kept, other.kept)
  np.testing.assert_array_equal(one.rank, other.rank)
