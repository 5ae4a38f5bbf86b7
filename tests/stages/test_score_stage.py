"""The score stage: signals against plain ones, carried rows, tables from elsewhere."""

import collections
import json
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from mllm_selector_jax.inputs import base_model as opened
from mllm_selector_jax.models import mllm
from mllm_selector_jax.scoring import engine
from mllm_selector_jax.scoring.score_table import read_lines, read_scores
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.models import packed, tiny

ROWS = 48
LONGEST = 128


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A drawn pool as a user would give it, a model and a reference model."""
  folder = tmp_path_factory.mktemp("score")
  for seed, name in enumerate(("model", "reference")):
    tiny.make_base(folder / name, seed=seed, num_hidden_layers=1)
  with small_run.open_run(
    folder / "drawn", folder / "model", **{"pool.demo.rows": ROWS}
  ) as current:
    COMMANDS["check"](current)
  return folder


def records(place):
  return json.loads((place / "drawn/demo_pool/pool.json").read_text())


def open_run(place, folder, rows=None, **overrides):
  """A run over these records, scored with the model."""
  data = folder.with_suffix(".json")
  data.write_text(json.dumps(records(place) if rows is None else rows))
  values = {
    "pool.demo.rows": 0,
    "pool.most_aside": 0.3,  # a quarter of a small drawn pool is broken
    "pool.data": str(data),
    "pool.images": str(place / "drawn/demo_pool/images"),
    "score.model": str(place / "model"),
    **overrides,
  }
  return small_run.open_run(folder, place / "model", **values)


def make_scores(place, folder, rows=None, **overrides):
  with open_run(place, folder, rows, **overrides) as current:
    COMMANDS["check"](current)
    COMMANDS["score"](current)
  return read_scores(folder / "scores")


@pytest.fixture(scope="module")
def scored(place, tmp_path_factory):
  folder = tmp_path_factory.mktemp("scored") / "work"
  signals = ("loss", "visual", "ifd", "excess")
  overrides = {"score.signals": signals, "score.reference": str(place / "reference")}
  return folder, make_scores(place, folder, **overrides)


forward = jax.jit(mllm.hidden_states, static_argnums=0)


def mean_loss(config, params, sample, kept, pixels):
  """One sample alone, less what is not kept, with float64 log-softmax in numpy."""
  tokens, supervised = sample.tokens[kept], sample.supervised[kept]
  batch = packed.pack(config, [[(tokens, pixels)]], LONGEST)
  hidden = np.asarray(forward(config, params, batch), np.float64)[0]
  where = np.flatnonzero(supervised)
  logits = hidden[where - 1] @ np.asarray(mllm.head(config, params), np.float64)
  logits -= logits.max(1, keepdims=True)
  picked = logits[np.arange(len(where)), tokens[where]]
  return (np.log(np.exp(logits).sum(1)) - picked).mean()


def test_control_signals_are_what_one_sample_at_a_time_gives(place, scored):
  folder, found = scored
  wanted = {name: [] for name in ("loss", "visual", "ifd", "excess")}
  with open_run(place, folder) as current:
    pool = opened.open_pool(current)
    reader = opened.open_reader(current, pool)
    config, params = opened.read_model(current, place / "model")
    _, reference = opened.read_model(current, place / "reference")
  for row in found.row:
    sample, tiles = reader.read(row)
    pixels = packed.find_pixels(tiles)
    every, words = np.full(len(sample.tokens), True), ~sample.asked
    assert sample.asked.any() and not (sample.asked & sample.supervised).any()
    loss = mean_loss(config, params, sample, every, pixels)
    text = sample.tokens != config.image_token
    blind = mean_loss(config, params, sample, text, None)
    wanted["loss"].append(loss)
    wanted["visual"].append(0 if pixels is None else blind - loss)
    wanted["ifd"].append(loss / mean_loss(config, params, sample, words, pixels))
    other = mean_loss(config, reference, sample, every, pixels)
    wanted["excess"].append(loss - other)
  assert set(pool.has_image[found.row]) == {True, False}
  for name, values in wanted.items():
    # visual and excess are differences of losses of about 6.
    np.testing.assert_allclose(
      found.signal(name), values, rtol=1e-5, atol=1e-4, err_msg=name
    )
    assert np.ptp(found.signal(name)) > 0.01


def poison(source, folder, token):
  """The model, finite, but with no finite value for what sees this token."""
  shutil.copytree(source, folder, symlinks=True)
  path = folder / "model.safetensors"
  tensors = safetensors.numpy.load_file(path)

  def find(end):
    return next(array for name, array in tensors.items() if name.endswith(end))

  # Dimension 0 is the token's own, and of a value too large to be multiplied.
  find("embed_tokens.weight")[:, 0] = 0
  find("embed_tokens.weight")[token, 0] = 1e4
  find("linear_2.weight")[0] = 0
  find("linear_2.bias")[0] = 0
  find("v_proj.weight")[:, 0] = 3e38
  safetensors.numpy.save_file(tensors, path, {"format": "pt"})


def test_a_loss_that_is_not_finite_is_named_and_not_selected(place, scored, tmp_path):
  with open_run(place, scored[0]) as current:
    reader = opened.open_reader(current, opened.open_pool(current))
    rows = scored[1].row
    ids = [set(reader.read(row)[0].tokens.tolist()) for row in rows]
  uses = collections.Counter(token for own in ids for token in own)
  token = next(token for token, count in uses.items() if count == 3)
  poison(place / "model", tmp_path / "poisoned", token)
  settings = {"score.model": str(tmp_path / "poisoned")}
  with open_run(place, tmp_path / "work", **settings) as current:
    COMMANDS["check"](current)
    COMMANDS["score"](current)
    COMMANDS["select"](current)
    pool = opened.open_pool(current)
  bad = [int(row) for row, own in zip(rows, ids, strict=True) if token in own]
  found = read_scores(tmp_path / "work/scores")
  assert found.row[~np.isfinite(found.signal("loss"))].tolist() == bad
  said = (tmp_path / "work/log.txt").read_text()
  named = ", ".join(f"row {row} (id {pool.id[row]})" for row in bad)
  assert f"the loss of 3 rows is not finite, so they are not selected: {named}." in said
  chosen = pq.read_table(tmp_path / "work/arms/main/selection/selection.parquet")
  assert [chosen["reason"][row].as_py() for row in bad] == ["not a number"] * 3


def test_excess_needs_a_reference(place, scored):
  with open_run(place, scored[0], **{"score.signals": ("excess",)}) as current:
    with pytest.raises(InputError, match=r"--config\.score\.reference=DIR"):
      COMMANDS["score"](current)


def test_added_rows_are_scored_without_the_old_ones(place, tmp_path, monkeypatch):
  rows = records(place)
  old, new = rows[10:40], rows[5:10] + rows[10:40][::-1] + rows[40:]
  before = make_scores(place, tmp_path / "work", old)
  lines = read_lines(tmp_path / "work/scores").to_pylist()
  asked = []
  run_pass = engine.run_pass

  def watch(config, params, reader, rows, *rest):
    asked.extend(rows)
    return run_pass(config, params, reader, rows, *rest)

  monkeypatch.setattr(engine, "run_pass", watch)
  found = make_scores(place, tmp_path / "work", new)
  wanted = make_scores(place, tmp_path / "whole", new)
  pool = pq.read_table(tmp_path / "work/pool.parquet").to_pydict()
  known = {line["hash"]: line for line in lines}
  fresh = [row for row in found.row if pool["hash"][row] not in known]
  assert asked[: len(fresh)] == fresh and 0 < len(fresh) < 15
  assert asked[len(fresh) :] == wanted.row.tolist()
  summary = json.loads((tmp_path / "work/scores/summary.json").read_text())
  assert summary["carried"] == len(before.row) == summary["scored"] - len(fresh)
  supervised = sum(pool["supervised"][row] for row in fresh)
  assert summary["passes"]["main"]["supervised"] == supervised
  np.testing.assert_array_equal(found.row, wanted.row)
  np.testing.assert_allclose(found.signal("loss"), wanted.signal("loss"), rtol=1e-5)
  np.testing.assert_allclose(
    small_run.read_embeddings(found), small_run.read_embeddings(wanted), atol=2e-5
  )
  for line in read_lines(tmp_path / "work/scores").to_pylist():
    if line["hash"] in known:
      # To the bit, under the row's new number.
      assert line == known[line["hash"]] | {"row": line["row"]}


def test_a_changed_model_or_signal_makes_the_table_stale_by_name(
  place, scored, tmp_path
):
  folder = tmp_path / "work"
  shutil.copytree(scored[0], folder, symlinks=True)
  shutil.copy(scored[0].with_suffix(".json"), folder.with_suffix(".json"))
  reference = str(place / "reference")
  settings = {
    "pool.data": str(scored[0].with_suffix(".json")),
    "score.reference": reference,
    "score.signals": ("loss", "excess"),
  }
  for changed, words in (
    ({}, "again: signals ['loss', 'visual', 'ifd', 'excess'] -> ['loss', 'excess']"),
    ({"score.model": reference}, "again: model changed"),
    ({"score.row_length": 512}, "scores is unchanged, kept"),  # changes no score
  ):
    settings |= changed
    start = len((folder / "log.txt").read_text())
    with open_run(place, folder, **settings) as current:
      COMMANDS["score"](current)
    assert words in (folder / "log.txt").read_text()[start:]
  assert not read_scores(folder / "scores").signal("excess").any()  # the same model


def test_a_table_made_elsewhere_is_brought_in(place, scored, tmp_path):
  folder, made = scored
  every = records(place)
  rows = [{**every[row], "id": f"new-{row}"} for row in made.row[::-1]]
  settings = {"score.model": None, "score.table": str(folder / "scores")}
  settings |= {"score.signals": ("loss", "visual"), "select.signal": "visual"}
  with open_run(place, tmp_path / "work", rows, **settings) as current:
    COMMANDS["check"](current)
    COMMANDS["score"](current)
    with pytest.raises(
      InputError, match=r"'accuracy'.*or give --config\.select\.bound"
    ):
      COMMANDS["select"](current)
    current.cfg.select.bound = "quantile"
    COMMANDS["select"](current)
  found = read_scores(tmp_path / "work/scores")
  hashes = read_lines(tmp_path / "work/scores")["hash"].to_pylist()
  old = read_lines(folder / "scores")["hash"].to_pylist()
  place_of = [old.index(value) for value in hashes]
  for name in ("loss", "visual", "excess"):
    np.testing.assert_array_equal(found.signal(name), made.signal(name)[place_of])
  np.testing.assert_array_equal(
    small_run.read_embeddings(found), small_run.read_embeddings(made)[place_of]
  )
  assert (tmp_path / "work/arms/main/selection/selected.json").exists()


@pytest.mark.parametrize(
  ("fault", "words"),
  [
    (
      "other rows",
      r"no scores for 1 of the \d+ usable rows.*first is row \d+ \(id .*\)",
    ),
    ("lacks", "lacks the columns entropy; it has"),
    ("damaged", "is damaged, or no score table"),
    ("embeddings", "lines, but .* embeddings"),
    ("empty", "holds no score table"),
    ("nowhere", "score.table=.*: there is no such directory"),
  ],
)
def test_a_table_that_does_not_fit_is_one_message(
  place, scored, tmp_path, fault, words
):
  source, rows, signals = tmp_path / "table", records(place), ("loss",)
  if fault != "nowhere":
    shutil.copytree(scored[0] / "scores", source)
  if fault == "other rows":
    rows[0] = {**rows[0], "conversations": rows[1]["conversations"][:1]}
    rows[0]["conversations"] += [{"from": "gpt", "value": "something else"}]
    rows[0]["image"] = rows[1].get("image")
  elif fault == "lacks":
    signals = ("loss", "entropy")
  elif fault == "damaged":
    part = source / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
  elif fault == "embeddings":
    (source / "embeddings/part-00000.npy").unlink()
  elif fault == "empty":
    for part in source.glob("part-*"):
      part.unlink()
  settings = {"score.model": None, "score.table": str(source)}
  with open_run(
    place, tmp_path / "work", rows, **settings, **{"score.signals": signals}
  ) as current:
    COMMANDS["check"](current)
    with pytest.raises(InputError, match=words):
      COMMANDS["score"](current)


def test_a_model_that_scores_is_named_as_the_base_is(tmp_path, monkeypatch):
  cache = tmp_path / "hub" / "models--some--model"
  shutil.copytree(opened.DEMO_BASE, cache / "snapshots" / "abc")
  (cache / "refs").mkdir()
  (cache / "refs" / "main").write_text("abc")
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
  made = {}
  for name in ("demo", str(opened.DEMO_BASE), "some/model"):
    settings = {"score.model": name, "pool.demo.rows": 60, "model.max_length": 128}
    place = tmp_path / f"work {len(made)}"
    with small_run.open_run(place, "demo", **settings) as current:
      COMMANDS["check"](current)
      COMMANDS["score"](current)
      made[name] = read_scores(current.workdir.scores.path).columns["loss"]
  for loss in made.values():
    np.testing.assert_array_equal(loss, made["demo"])
