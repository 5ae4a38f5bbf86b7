import dataclasses

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.scoring import engine, passes
from mllm_selector_jax.scoring.score_step import make_score_step
from mllm_selector_jax.types import Batch, InputError, Stopped
from tests.models import packed
from tests.scoring import pools

CONFIG = pools.CONFIG
SUMS = ("loss", "correct", "entropy", "el2n", "grand")


@pytest.fixture(scope="module")
def params():
  return packed.random_params(CONFIG)


def mesh(count=1, **axes):
  return sharding.make_mesh(**axes, devices=jax.devices()[:count])


@pytest.fixture(scope="module")
def scored(params, tmp_path_factory):
  folder = tmp_path_factory.mktemp("scored")
  return pools.score(pools.make_pool(), params, folder / "main", mesh())


forward = jax.jit(mllm.hidden_states, static_argnums=0)


def score_alone(params, sample, tiles):
  """Plain numpy on one sample in a row of its own: sums, turns, embedding."""
  batch = packed.pack(CONFIG, [[(sample.tokens, packed.find_pixels(tiles))]], 48)
  hidden = np.asarray(forward(CONFIG, params, batch), np.float64)[0]
  logits = hidden @ np.asarray(mllm.head(CONFIG, params), np.float64)
  (where,) = np.nonzero(sample.supervised)
  found = {name: [] for name in SUMS}
  for place in where:
    scores, target = logits[place - 1], sample.tokens[place]
    p = np.exp(scores - scores.max())
    p /= p.sum()
    gradient = p - np.eye(len(p))[target]
    found["loss"].append(-np.log(p[target]))
    found["correct"].append(float(scores.argmax() == target))
    found["entropy"].append(-(p * np.log(p)).sum())
    found["el2n"].append(np.linalg.norm(gradient))
    found["grand"].append(np.linalg.norm(np.outer(hidden[place - 1], gradient)))
  turns = sample.turns[where]
  every = range(turns.max() + 1)
  losses = [np.mean(np.array(found["loss"])[turns == turn]) for turn in every]
  first = [where[turns == turn][0] - 1 for turn in every]
  sums = {name: sum(values) for name, values in found.items()}
  return sums, losses, hidden[first].mean(0)


def test_shared_and_packed_equal_one_at_a_time(params, scored):
  pool, (counts, columns, embeddings) = pools.make_pool(), scored
  assert counts["tokens"] < pool.table.tokens.sum()  # some were shared
  np.testing.assert_array_equal(columns["row"], np.arange(23))
  for row, (sample, tiles) in enumerate(pool.samples):
    sums, losses, embedding = score_alone(params, sample, tiles)
    for name in SUMS:
      np.testing.assert_allclose(columns[name][row], sums[name], rtol=1e-5)
    np.testing.assert_allclose(columns["turn_losses"][row], losses, rtol=1e-5)
    np.testing.assert_allclose(embeddings[row], embedding, atol=1e-5)
  np.testing.assert_array_equal(columns["supervised"], pool.table.supervised)


@pytest.mark.parametrize(
  "devices, axes, options",
  [
    (1, {}, {"share": False}),
    (1, {}, {"batch_rows": 1, "row_length": 200, "part_rows": 100}),
    (2, {"data": 2}, {"batch_rows": 3, "threads": 2}),
    (8, {"data": 2, "fsdp": 2, "tensor": 2}, {"row_length": 30}),
    (8, {"data": 8}, {"share": False, "batch_rows": 8}),
  ],
)
def test_neither_plan_nor_batch_nor_devices_matter(
  params, scored, tmp_path, devices, axes, options
):
  _, wanted, embeddings = scored
  _, found, others = pools.score(
    pools.make_pool(), params, tmp_path, mesh(devices, **axes), **options
  )
  for name in SUMS:
    np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(others, embeddings, atol=1e-5)


@pytest.mark.parametrize("changed", [0, 2, 3, 6])
def test_a_sample_changes_no_bit_of_the_others(params, scored, tmp_path, changed):
  pool, (_, wanted, embeddings) = pools.make_pool(), scored
  sample, tiles = pool.samples[changed]
  prefixes = pool.table.prefixes.take(np.array([changed]))
  trunk = prefixes.tokens.max(initial=len(pools.SYSTEM))
  tokens = sample.tokens.copy()
  text = (np.arange(len(tokens)) >= trunk) & (tokens != pools.IMAGE)
  tokens[text] = np.where(tokens[text] < 20, tokens[text] + 9, tokens[text] - 7)
  pool.samples[changed] = sample._replace(tokens=tokens), tiles
  _, found, others = pools.score(pool, params, tmp_path, mesh())
  rest = np.arange(23) != changed
  for name in SUMS:
    np.testing.assert_array_equal(found[name][rest], wanted[name][rest])
  np.testing.assert_array_equal(others[rest], embeddings[rest])
  assert found["loss"][changed] != wanted["loss"][changed]


def test_an_image_changes_its_own_samples_alone(params, scored, tmp_path):
  pool, (_, wanted, _) = pools.make_pool(), scored
  own = pool.keys == pool.keys[2]
  assert 1 < own.sum() < 20
  pool.samples = [
    (sample, tuple(255 - cut for cut in tiles) if mine else tiles)
    for (sample, tiles), mine in zip(pool.samples, own, strict=True)
  ]
  _, found, _ = pools.score(pool, params, tmp_path, mesh())
  np.testing.assert_array_equal(found["loss"] == wanted["loss"], ~own)


def read_bytes(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_stopped_or_damaged_pass_goes_on_to_the_same_bytes(params, tmp_path):
  pool = pools.make_pool()
  rows, options = np.arange(23), engine.ScoreOptions(48, 4, 8, 0)
  pools.score(pool, params, tmp_path / "whole", mesh())
  folder = tmp_path / "broken"
  folder.mkdir()
  arguments = (CONFIG, params, pool, rows, options, mesh(), folder)
  with pytest.raises(Stopped, match=r"scoring stopped after \d+ of 23 rows"):
    engine.run_pass(*arguments, stopped=lambda: True)
  assert len(list(folder.glob("*.parquet"))) == 1
  damaged = bytearray((folder / "part-00000.npy").read_bytes())
  damaged[-1] ^= 1
  (folder / "part-00000.npy").write_bytes(damaged)
  seen = []
  engine.run_pass(*arguments, progress=lambda done, total: seen.append((done, total)))
  assert read_bytes(folder) == read_bytes(tmp_path / "whole")
  assert seen[0] == (0, 23) and seen[-1] == (23, 23)
  seen.clear()
  engine.run_pass(*arguments, progress=lambda done, total: seen.append((done, total)))
  assert seen == [(23, 23)]  # nothing was done again


@pytest.mark.parametrize("name", ["no_image", "no_question"])
def test_control_passes_leave_out_what_they_say(params, tmp_path, name):
  pool = pools.make_pool()
  own = passes.CONTROLS[name]
  counts, columns, none = pools.score(pool, params, tmp_path, mesh(), own)
  assert none is None and (name == "no_question") == (counts["tiles"] > 0)
  for row, (sample, tiles) in enumerate(pool.samples):
    kept = sample.tokens != pools.IMAGE if name == "no_image" else ~sample.asked
    assert kept.sum() < len(kept) or not pool.table.has_image[row]
    alone = sample._replace(
      tokens=sample.tokens[kept],
      supervised=sample.supervised[kept],
      turns=sample.turns[kept],
    )
    sums, _, _ = score_alone(params, alone, tiles if name == "no_question" else ())
    np.testing.assert_allclose(columns["loss"][row], sums["loss"], rtol=1e-5)


def test_the_logits_of_a_sequence_are_never_held():
  vocab, length, rows, learned = 50_000, 256, 4, 64
  config = packed.make_config(decoder_vocab=vocab)
  shape = lambda dtype, *sides: jax.ShapeDtypeStruct(sides, dtype)  # noqa: E731
  row, few = shape("int32", rows, length), shape("int32", 1, learned)
  batch = Batch(
    row, row, row, row,
    images=shape("uint8", 1, 4, 16, 16, 3),
    predict=few, targets=few, weights=shape("float32", 1, learned), answers=few,
    prefixes=row,
  )  # fmt: skip
  step = make_score_step(config)
  compiled = step.lower(mllm.abstract(config), batch).compile()
  held = compiled.memory_analysis().temp_size_in_bytes
  assert 4 * learned * vocab < held < 4 * rows * length * vocab / 4


def test_a_pool_without_images_or_of_one_row(params, tmp_path):
  pool = pools.make_pool()
  text = np.flatnonzero(~pool.table.has_image)
  for name, rows in (("text", text), ("one", text[:1])):
    counts, columns, _ = pools.score(
      pool, params, tmp_path / name, mesh(8), rows=rows, batch_rows=1
    )
    np.testing.assert_array_equal(columns["row"], rows)
    assert np.isfinite(columns["loss"]).all() and counts["tiles"] == 0


def test_wrong_options_are_named():
  with pytest.raises(InputError, match=r"score\.batch_rows=0"):
    engine.ScoreOptions(batch_rows=0)
  with pytest.raises(InputError, match=r"names 'lss' .*; allowed: loss"):
    engine.ScoreOptions(signals=("lss",))


def test_half_precision_is_near(params, scored, tmp_path):
  config = dataclasses.replace(CONFIG, dtype="bfloat16")
  _, found, _ = pools.score(pools.make_pool(), params, tmp_path, mesh(), config=config)
  error = np.abs(found["loss"] / scored[1]["loss"] - 1)
  assert 0 < error.max() < 0.05
