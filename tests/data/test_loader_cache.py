"""What the reader of a pool keeps in memory, and how much that is."""

import gc
import tracemalloc

import numpy as np
import pytest

from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.packing import loader
from mllm_selector_jax.data.pool import pool_check, pool_table
from mllm_selector_jax.types import Sample
from tests.data.pools_on_the_spot import make_record, write_images, write_records
from tests.data.test_several_images_pool import make_encoder


def make_sample(length):
  tokens = np.arange(length, dtype=np.int32)
  return Sample(tokens, tokens > 3, tokens - 1, tokens < 3, False)


@pytest.mark.parametrize("length", [20, 200, 2000])
def test_a_cache_is_not_larger_than_it_says(length):
  gc.collect()
  tracemalloc.start()
  cache, count = loader.Cache(1 << 30), 2_000_000 // (length + 200)
  for row in range(count):
    sample = make_sample(length)
    cache.put(("row", row), sample, loader.measure_sample(sample))
  taken, _ = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  told = count * loader.measure_sample(make_sample(length))
  assert taken < told < 3 * taken


@pytest.mark.parametrize("keeps_tokens", [True, False])
def test_rows_that_are_read_once_are_not_kept(tmp_path, keeps_tokens):
  write_images(tmp_path / "images", "a.png")
  data = write_records(
    tmp_path / "pool.json", [make_record(n, "a.png") for n in range(3)]
  )
  encoder, out = make_encoder(), tmp_path / "pool.parquet"
  folders = ImageFolders.of(str(tmp_path / "images"))
  pool_check.check_pool([data], str(tmp_path / "images"), encoder, 10_000, out)
  cache, table = loader.Cache(1 << 20), pool_table.read_table(out)
  reader = loader.Reader(table, encoder, folders, 10_000, cache, keeps_tokens)
  for row in range(3):
    _, tiles = reader.read(row)
    assert len(tiles) == 1 and (cache.get(("row", row)) is not None) == keeps_tokens
  again, _ = reader.read(0)
  np.testing.assert_array_equal(again.tokens, reader.read(0)[0].tokens)
  kinds = sorted(key[0] for key in cache._values)
  assert kinds == ["image", *["row"] * 3 * keeps_tokens]
