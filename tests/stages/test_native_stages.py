"""A base that reads images at their own resolution, through every command."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.pipeline.measure_sets import measure_files
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.models import tiny_qwen
from tests.stages.family_bases import make_base
from tests.stages.test_families import RUN, write_pool

MOST = 12 * tiny_qwen.SIDE**2  # pixels
SETTINGS = {
  **RUN,
  "model.resize_pixels": MOST,
  "seed.lora.rank": 2,
  "select.groups": "source",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("native")
  base = make_base(folder / "base", "qwen3_vl")
  settings = {**SETTINGS, **write_pool(folder / "pool")}
  with small_run.open_run(folder / "work", base, **settings) as run:
    COMMANDS["run"](run)
  return folder / "work", base, settings


def open_again(made, **changes):
  work, base, settings = made
  return small_run.open_run(work, base, **{**settings, **changes})


def test_the_check_tells_what_the_limit_saves(made):
  work = made[0]
  summary = json.loads((work / "pool_summary.json").read_text())
  table = read_table(work / "pool.parquet")
  saved = summary["images"]["saved"]["resize_pixels"]
  assert saved["tokens"] > 0 and summary["images"]["tiles"] == table.tiles.sum()
  images, several = table.images.counts, table.image_tokens
  assert (several == table.tiles + 2 * images * table.ok).all()


def test_the_tuned_model_keeps_to_the_limit(made):
  out = made[0] / "arms/main/tuned/hf"
  fields = json.loads((out / "preprocessor_config.json").read_text())
  assert fields["max_pixels"] == fields["size"]["longest_edge"] == MOST
  _, options = huggingface.read_processor(out)
  assert (options.min_pixels, options.max_pixels) == (tiny_qwen.PIXELS[0], MOST)
  assert (made[0] / "seed/adapter/adapter_config.json").is_file()


def test_a_limit_of_tiles_is_refused_before_anything_is_read(made, tmp_path):
  _, base, settings = made
  settings = {**settings, "model.max_tiles": 6}
  with small_run.open_run(tmp_path / "work", base, **settings) as run:
    with pytest.raises(InputError, match=r"max_tiles=6.*model\.resize_pixels"):
      COMMANDS["check"](run)


def test_pages_show_the_images(made):
  report = (made[0] / "report.html").read_text()
  assert report.count("data:image/") > 3
  with open_again(made) as run:
    texts = list(explain_rows(run, ("row=2",), "main"))
  assert len(texts) == 1 and "row 2" in texts[0]


def test_lists_of_rows_are_measured_and_exported(made, tmp_path):
  (tmp_path / "ids.txt").write_text("r0\nr3\nr7\nr12\n")
  with open_again(made) as run:
    found = measure_files(run, (str(tmp_path / "ids.txt"),))
    assert found["sets"][0]["rows"] == 4
  with open_again(made, **{"export_selection.formats": "llava,trl,card"}) as run:
    COMMANDS["export-selection"](run)
  assert (made[0] / "arms/main/exports").is_dir()


def test_a_prepared_pool_gives_the_same_rows(made, tmp_path):
  with open_again(made) as run:
    COMMANDS["prepare"](run)
  changes = {"pool.data": str(made[0] / "prepared"), "pool.images": ""}
  settings = {**made[2], **changes}
  with small_run.open_run(tmp_path / "work", made[1], **settings) as run:
    COMMANDS["check"](run)
  tables = [read_table(at / "pool.parquet") for at in (made[0], tmp_path / "work")]
  for column in ("hash", "pixels", "tokens", "tiles", "prefix_keys"):
    first, second = (list(getattr(table, column)) for table in tables)
    assert first == second, column


@pytest.mark.parametrize("name", ["kl", "coincide", "facility_location", "top"])
def test_strategies_select(made, name):
  with open_again(made, **{"select.strategy": name}) as run:
    COMMANDS["select"](run)
  kept = pq.read_table(made[0] / "arms/main/selection/selection.parquet")["kept"]
  assert 0 < np.sum(kept.to_numpy()) < 21


def test_a_run_is_planned_and_its_projector_aligned(made, tmp_path):
  _, base, settings = made
  changes = {"align.rows": "8", "align.batch": 4, "align.row_length": 448}
  with small_run.open_run(tmp_path / "work", base, **{**settings, **changes}) as run:
    COMMANDS["check"](run)
    COMMANDS["plan"](run)
    COMMANDS["align"](run)
  config = huggingface.read_config(base)
  before = huggingface.read_params(base, config)
  after = huggingface.read_params(tmp_path / "work/aligned/hf", config)
  for part, values in before.items():
    pairs = zip(flat(values), flat(after[part]), strict=True)
    assert all(map(np.array_equal, *zip(*pairs, strict=True))) == (part != "projector")


def flat(params):
  for value in params.values():
    if isinstance(value, dict):
      yield from flat(value)
    else:
      yield np.asarray(value).ravel()
