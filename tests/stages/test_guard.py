"""A pool that has lost its rows stops a run before anything is replaced."""

import json
import shutil

import pytest

from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.inputs import guard
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.data.pools_on_the_spot import make_record, write_images

ROWS = 24
KEPT = ("pool", "scores", "arms")  # beginnings of the names of what must stay


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("guard")
  write_images(folder / "images", *(f"a/{n}.png" for n in range(4)))
  records = [make_record(n, f"a/{n % 4}.png" if n % 6 else None) for n in range(ROWS)]
  (folder / "pool.json").write_text(json.dumps(records))
  return folder


def open_run(work, place, base, **overrides):
  settings = {
    "pool.data": str(place / "pool.json"),
    "pool.images": str(place / "images"),
    "score.model": str(base),
    "select.groups": "source",
    "select.control": False,
    **overrides,
  }
  return small_run.open_run(work, base, **settings)


@pytest.fixture(scope="module")
def finished(place, base, tmp_path_factory):
  """A workdir of a whole run on given data, and what its log says."""
  folder = tmp_path_factory.mktemp("finished") / "work"
  with open_run(folder, place, base) as current:
    COMMANDS["run"](current)
  return folder


def read_kept(folder):
  found = small_run.read_bytes(folder)
  return {
    name: data
    for name, data in found.items()
    if name.startswith(KEPT) and not name.startswith("pool.partial")
  }


def test_given_data_go_before_the_drawn_pool(finished, place, base):
  table = read_table(finished / "pool.parquet")
  assert len(table) == ROWS and set(table.file) == {str(place / "pool.json")}
  assert not (finished / "demo_pool").exists()
  made = json.loads((finished / "pool.provenance.json").read_text())
  assert made["config"]["demo"] is None
  told = (finished / "log.txt").read_text()
  line = "pool.data is given, so the demo pool of pool.demo.rows=120 is not drawn"
  assert told.count(line) == 1
  assert "evaluate: skipped" in told and not (finished / "leakage").exists()
  with open_run(finished, place, base, **{"compare.fresh_pools": True}) as current:
    with pytest.raises(InputError, match=r"fresh_pools .* and pool.data is given"):
      COMMANDS["compare"](current)


@pytest.mark.parametrize(
  "make", [COMMANDS["run"], COMMANDS["check"], COMMANDS["prepare"]]
)
def test_a_wrong_image_folder_leaves_a_finished_workdir_as_it_is(
  finished, place, base, tmp_path, make
):
  folder = tmp_path / "work"
  shutil.copytree(finished, folder, symlinks=True)
  wanted = read_kept(folder)
  wrong = {"pool.images": str(tmp_path / "elsewhere")}
  with open_run(folder, place, base, **wrong) as current:
    with pytest.raises(InputError) as refused:
      make(current)
  told = str(refused.value)
  assert f"fall from {ROWS} in {folder / 'pool.parquet'} to 4, by 83.3%" in told
  assert "missing image 20" in told and "--config.pool.images=FOLDER" in told
  assert "Nothing was replaced" in told and "--config.pool.most_lost=1" in told
  # A look alone may have any number of rows set aside, but may not lose a good pool.
  look = make is COMMANDS["check"]
  assert ("20 of the pool's 24 rows (83.3%) are set aside" in told) == (not look)
  assert ("--config.pool.most_aside=1" in told) == (not look)
  assert read_kept(folder) == wanted
  # The table is shown, and the option goes on from the check that was refused.
  assert "24 rows = 4 usable + 20 set aside" in (folder / "log.txt").read_text()
  wrong["pool.most_lost"] = 1.0
  with open_run(folder, place, base, **wrong) as current:
    COMMANDS["check"](current)
  assert int(read_table(folder / "pool.parquet").ok.sum()) == 4


def test_a_first_look_shows_what_it_is_and_nothing_is_made_of_it(place, base, tmp_path):
  wrong = {"pool.images": str(tmp_path / "elsewhere"), "seed.rows": "100%"}
  with open_run(tmp_path / "work", place, base, **wrong) as current:
    COMMANDS["check"](current)
  assert int(read_table(tmp_path / "work/pool.parquet").ok.sum()) == 4
  wrong["evaluate.tasks"] = wrong["select.search.images"] = "none.jsonl"
  for make in (
    COMMANDS["run"],
    COMMANDS["seed"],
    COMMANDS["score"],
    COMMANDS["compare"],
    COMMANDS["prepare"],
  ):
    with open_run(tmp_path / "work", place, base, **wrong) as current:
      with pytest.raises(InputError, match=r"20 of .* 24 rows .*are set aside"):
        make(current)
  made = {path.name for path in (tmp_path / "work").iterdir()}
  assert made <= {"pool.parquet", "pool_summary.json", "pool.provenance.json"} | {
    "log.txt",
    ".lock",
  }


def test_a_first_run_stops_after_its_check_and_goes_on_by_the_option(
  place, base, tmp_path
):
  work = tmp_path / "work"
  wrong = {"pool.images": str(tmp_path / "elsewhere")}
  with open_run(work, place, base, **wrong) as current:
    with pytest.raises(InputError, match=r"most_aside=0\.2 allows 20\.0%"):
      COMMANDS["prepare"](current)
  wrong |= {"pool.most_aside": 0.9, "prepare.workers": 1}
  before = len((work / "log.txt").read_text())
  with open_run(work, place, base, **wrong) as current:
    COMMANDS["prepare"](current)
  told = (work / "log.txt").read_text()[before:]
  assert "check: pool is unchanged, kept" in told
  assert (work / "prepared").exists()


def test_a_pool_that_is_drawn_otherwise_is_another_pool(base, tmp_path):
  for rows in (120, 48):  # a quarter of the second is broken on purpose
    with small_run.open_run(tmp_path, base, **{"pool.demo.rows": rows}) as current:
      COMMANDS["check"](current)
      guard.refuse_aside(current)
  assert len(read_table(tmp_path / "pool.parquet")) == 48
  settings = {"pool.demo.rows": 48, "model.max_length": 72, "pool.long_rows": "aside"}
  with small_run.open_run(tmp_path, base, **settings) as current:
    with pytest.raises(InputError, match="too long 12"):
      COMMANDS["check"](current)
