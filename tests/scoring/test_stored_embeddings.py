"""Mapped embeddings: the numbers that were stored, without descriptors."""

import os

import numpy as np
import pytest

from mllm_selector_jax.scoring import score_parts, stored_embeddings

PARTS = 300


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts them as Linux")
@pytest.mark.parametrize("kind", ["parts", "stored"])
def test_a_thousand_parts_need_no_thousand_open_files(tmp_path, kind):
  # Ten million rows have 1,221 parts, and a process often no more than 1,024 files.
  folder = tmp_path if kind == "parts" else tmp_path / "embeddings"
  folder.mkdir(exist_ok=True)
  for number in range(PARTS):
    columns = {"row": np.arange(2), "embedding": np.full((2, 3), number, np.float16)}
    columns["turn_losses"] = [[0.5], [0.25, 0.5]]
    score_parts.write_part(folder, number, columns)
  before = len(os.listdir("/proc/self/fd"))
  if kind == "parts":
    found = [array for _, array in score_parts.read_parts(folder, PARTS)]
  else:
    found = stored_embeddings.map_stored(tmp_path)
  assert len(os.listdir("/proc/self/fd")) < before + 20
  assert [array[1, 2] for array in found] == list(range(PARTS))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(5, 3), (1, 1), (0, 3), (4, 0)])
@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f4"])
def test_an_array_is_mapped_as_numpy_reads_it(tmp_path, order, shape, kind):
  values = np.random.default_rng(0).normal(size=shape).astype(kind, order=order)
  np.save(tmp_path / "a.npy", values)
  found = stored_embeddings.map_array(tmp_path / "a.npy")
  wanted = np.load(tmp_path / "a.npy")
  assert found.dtype == wanted.dtype and found.shape == shape
  np.testing.assert_array_equal(found, wanted)
  assert not found.size or not found.flags.writeable
