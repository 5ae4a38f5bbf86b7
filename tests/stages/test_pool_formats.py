"""A pool in any format is checked, prepared and scored as its LLaVA JSON is."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import make_record, write_images
from tests.models import tiny

NAMES = sorted(set(formats_on_the_spot.WRITERS) - {"llava"})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pools")
  tiny.make_base(folder / "base")
  write_images(folder / "images", *(f"a/{n}.png" for n in range(4)))
  return folder


def make_records():
  return [make_record(n, f"a/{n % 4}.png" if n % 5 else None) for n in range(24)]


def run_stages(place, data, *commands, **overrides):
  work = place / f"work_{abs(hash(data))}"
  overrides = {
    "pool.demo.rows": 0,
    "pool.data": data,
    "pool.images": str(place / "images"),
    "score.model": str(place / "base"),
    "prepare.workers": 1,
    "prepare.shard_rows": 10,
    **overrides,
  }
  with small_run.open_run(work, place / "base", **overrides) as current:
    for command in commands:
      command(current)
  return work


def read_scores(work):
  parts = sorted((work / "scores").glob("*.parquet"))
  tables = [pq.read_table(part) for part in parts]
  return {
    name: np.concatenate([table[name].to_numpy() for table in tables])
    for name in ("row", "loss", "loss_sum", "entropy")
  }


@pytest.fixture(scope="module")
def llava(place):
  data = formats_on_the_spot.write_pool(
    "llava", make_records(), place / "images", place
  )
  return run_stages(
    place, data, COMMANDS["check"], COMMANDS["score"], COMMANDS["prepare"]
  )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_digest_and_the_same_scores(place, llava, name):
  data = formats_on_the_spot.write_pool(name, make_records(), place / "images", place)
  work = run_stages(place, data, COMMANDS["check"], COMMANDS["score"])
  hashes = [
    pq.read_table(w / "pool.parquet")["hash"].to_pylist() for w in (work, llava)
  ]
  assert hashes[0] == hashes[1] and None not in hashes[0]
  wanted, found = read_scores(llava), read_scores(work)
  for column, values in wanted.items():
    np.testing.assert_array_equal(found[column], values, column)


def test_a_prepared_pool_needs_no_image_folder(place, llava):
  data = str(llava / "prepared")
  work = run_stages(
    place, data, COMMANDS["check"], COMMANDS["score"], **{"pool.images": None}
  )
  np.testing.assert_array_equal(read_scores(work)["loss"], read_scores(llava)["loss"])
  told = json.loads((llava / "prepared/pool_summary.json").read_text())
  assert told["ok"] == 24
  place_of_log = len((llava / "log.txt").read_text())
  run_stages(place, str(place / "pool_llava.json"), COMMANDS["prepare"])
  assert "prepared is unchanged, kept" in (llava / "log.txt").read_text()[place_of_log:]


def test_seed_selection_and_export_of_a_tar(place, llava):
  data = formats_on_the_spot.write_pool("tar", make_records(), place / "images", place)
  work = run_stages(
    place, data, COMMANDS["check"], COMMANDS["score"], COMMANDS["select"],
    COMMANDS["export-selection"],
    COMMANDS["seed"], **{"seed.rows": "6", "seed.batch": 4,
    "export_selection.formats": "verbatim,llava,trl,weights"},
  )  # fmt: skip
  arm = work / "arms/main"
  kept = json.loads((arm / "selection/selected.json").read_text())
  assert kept and all(record in make_records() for record in kept)
  weights = pq.read_table(arm / "exports/weights/weights.parquet").to_pydict()
  assert weights["id"] == [record["id"] for record in kept]
  assert sorted(weights["rank"]) == list(range(len(kept)))
  assert pq.read_table(arm / "exports/trl/selected.parquet").num_rows == len(kept)
  assert (arm / "exports/verbatim/pool_tar.tar").exists()
  # What names images as files has them beside it; what holds their bytes has none.
  lines = json.loads((arm / "exports/llava/selected.json").read_text())
  images = arm / "exports/llava/images"
  assert all((images / line["image"]).is_file() for line in lines if "image" in line)
  assert f"their images are in {images.resolve()}" in (work / "log.txt").read_text()
  assert [path.name for path in (arm / "exports/trl").iterdir()] == ["selected.parquet"]
  assert (work / "seed/hf/model.safetensors").exists()


def test_an_unknown_export_is_told(place, llava):
  data = str(place / "pool_llava.json")
  with pytest.raises(InputError, match="allowed are verbatim, llava"):
    run_stages(
      place,
      data,
      COMMANDS["export-selection"],
      **{"export_selection.formats": "ids,csv"},
    )
