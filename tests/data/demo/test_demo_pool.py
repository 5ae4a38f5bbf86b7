"""The pool's files against the truth beside them."""

import collections
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import demo_oracle
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_selector_jax.demo import BROKEN, MIXTURE, TASKS, PoolOptions, draw_pool
from mllm_selector_jax.demo.language import SHORT_ANSWER, tokens, vocabulary
from mllm_selector_jax.types import REASONS, InputError

OPTIONS = PoolOptions(rows=1500, seed=3)
QUIET = {
  "wrong": 0.0,
  "misaligned": 0.0,
  "duplicates": 0.0,
  "shared": 0.0,
  "hinted": 0.0,
  "multi_turn": 0.0,
  "jpeg": 0.0,
  "broken": 0,
}


def read(folder):
  records = json.loads((folder / "pool.json").read_text())
  return records, pq.read_table(folder / "truth.parquet").to_pylist()


def hash_files(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pool")
  counts = draw_pool(folder, OPTIONS)
  return folder, counts, *read(folder)


def turns_of(record):
  """Questions without mark and prompt, and the answers given."""
  values = [turn["value"] for turn in record["conversations"]]
  questions = [
    value.removeprefix("<image>\n").removesuffix(SHORT_ANSWER) for value in values[::2]
  ]
  return questions, values[1::2]


def test_every_answer_agrees_with_the_truth(pool):
  _, _, records, truth = pool
  for record, row in zip(records, truth, strict=True):
    if row["broken"]:
      continue
    questions, given = turns_of(record)
    scene = json.loads(row["scene"]) if row["scene"] else None
    right = [demo_oracle.answer(scene, question) for question in questions]
    assert right == row["answers"], (record, row)
    if row["wrong"]:
      assert all(a != b for a, b in zip(given, right, strict=True))
      assert set(given) <= set(TASKS[row["task"]].answers)
    else:
      assert given == right, (record, row)


def test_images_show_the_scenes(pool):
  folder, _, records, truth = pool
  for record, row in zip(records, truth, strict=True):
    if row["broken"] or row["misaligned"] or not row["scene"]:
      continue
    scene = json.loads(row["scene"])
    with Image.open(folder / "images" / record["image"]) as image:
      pixels = np.array(image.convert("RGB"), int)
    assert pixels.shape == (scene["height"], scene["width"], 3)
    for thing in scene.get("things", []):
      x, y = thing["left"] + thing["size"] // 2, thing["top"] + thing["size"] // 2
      if thing["shape"] != "ring":
        assert np.abs(pixels[y, x] - thing["rgb"]).max() < 40, (record, thing)
    for bar in scene.get("bars", []):
      middle = (bar["left"] + bar["right"]) // 2
      assert np.abs(pixels[scene["base"] - 2, middle] - bar["rgb"]).max() < 40


def test_shares_are_as_asked(pool):
  _, counts, records, truth = pool
  tasks = collections.Counter(row["task"] for row in truth)
  for task, share in MIXTURE:
    assert abs(tasks[task] - share * OPTIONS.rows) <= 1
  assert counts["tasks"] == dict(tasks)
  by_name = {
    "wrong": (OPTIONS.wrong, sum(row["wrong"] for row in truth)),
    "misaligned": (OPTIONS.misaligned, sum(row["misaligned"] for row in truth)),
    "duplicates": (
      OPTIONS.duplicates,
      sum(row["duplicate_of"] is not None for row in truth),
    ),
  }
  for name, (share, found) in by_name.items():
    assert abs(found / OPTIONS.rows - share) < 0.01, name
    assert counts[name] == found
  several = sum(len(record["conversations"]) > 2 for record in records)
  assert abs(several / OPTIONS.rows - OPTIONS.multi_turn) < 0.03
  no_image = [row for row in truth if row["answerable_without_image"]]
  assert {"fact", "shape", "color", "existence"} <= {row["task"] for row in no_image}
  assert abs(len(no_image) / OPTIONS.rows - OPTIONS.hinted - 0.04) < 0.01
  assert all(row["answerable_without_image"] for row in truth if row["task"] == "fact")
  # Wrong answers are spread over the tasks.
  for task, count in tasks.items():
    wrong = sum(row["wrong"] for row in truth if row["task"] == task)
    assert 0.02 < wrong / count < 0.26, task


def test_misaligned_rows_show_another_rows_image(pool):
  _, _, records, truth = pool
  by_image = {
    record["image"]: row["scene"]
    for record, row in zip(records, truth, strict=True)
    if "image" in record and not row["misaligned"]
  }
  for record, row in zip(records, truth, strict=True):
    if row["misaligned"]:
      assert not row["wrong"] and not row["broken"]
      assert by_image[record["image"]] != row["scene"]


def test_duplicates_repeat_a_row_with_another_file(pool):
  folder, _, records, truth = pool
  for record, row in zip(records, truth, strict=True):
    if row["duplicate_of"] is None:
      continue
    first = records[row["duplicate_of"]]
    assert row["duplicate_of"] < row["row"]
    assert first["conversations"] == record["conversations"]
    assert truth[row["duplicate_of"]]["wrong"] == row["wrong"]
    assert not truth[row["duplicate_of"]]["misaligned"]
    assert first["image"] != record["image"]
    one, two = (
      (folder / "images" / path).read_bytes()
      for path in (first["image"], record["image"])
    )
    assert one != two


def test_every_kind_of_broken_row_is_there_and_broken(pool):
  folder, counts, records, truth = pool
  found = collections.Counter(row["broken"] for row in truth if row["broken"])
  assert set(found) == set(BROKEN) and found.total() == OPTIONS.broken
  assert counts["broken"] == dict(found)
  assert set(BROKEN.values()) <= set(REASONS)
  ids = [record["id"] for record in records]
  for record, row in zip(records, truth, strict=True):
    path = folder / "images" / record.get("image", "")
    given = [t["value"] for t in record["conversations"] if t["from"] == "gpt"]
    assert record["id"] == row["id"]
    repeated = record["id"] in ids[: row["row"]]
    assert repeated == (row["broken"] == "duplicate id")
    assert path.exists() == (row["broken"] != "missing image")
    assert (given == []) == (row["broken"] == "no answer turn")
    assert ("" in given) == (row["broken"] == "empty answer")
    if row["broken"] == "truncated image":
      with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
        image.load()
    elif path.is_file():
      with Image.open(path) as image:
        image.load()


def test_records_say_nothing_of_the_truth(pool):
  folder, _, records, _ = pool
  for record in records:
    assert set(record) <= {"id", "image", "conversations"}
    for place, turn in enumerate(record["conversations"]):
      assert set(turn) == {"from", "value"}
      first_with_image = place == 0 and "image" in record
      assert turn["value"].startswith("<image>\n") == first_with_image
      assert turn["value"].endswith(SHORT_ANSWER) == (place == 0)
  assert {path.name for path in folder.iterdir()} == {
    "images",
    "pool.json",
    "truth.parquet",
  }


def test_sources_are_coarse_and_do_not_name_the_task(pool):
  _, counts, records, truth = pool
  tasks_of, sources_of = collections.defaultdict(set), collections.defaultdict(set)
  for record, row in zip(records, truth, strict=True):
    source = record["image"].split("/")[0] if "image" in record else "text only"
    tasks_of[source].add(row["task"])
    if not row["misaligned"]:
      sources_of[row["task"]].add(source)
  assert set(tasks_of) == {"scenes", "signs", "charts", "text only"}
  assert counts["sources"].keys() == tasks_of.keys()
  assert len(tasks_of["scenes"]) > 5 and len(tasks_of["charts"]) > 3
  assert sum(len(sources) > 1 for sources in sources_of.values()) >= 4


def test_images_are_varied_and_shared(pool):
  folder, counts, records, _ = pool
  paths = [path for path in (folder / "images").rglob("*") if path.is_file()]
  assert counts["images"] == len(paths)
  assert {path.suffix for path in paths} == {".png", ".jpg"}
  sizes = {Image.open(path).size for path in paths}
  assert any(width != height for width, height in sizes) and (32, 32) in sizes
  assert max(max(size) for size in sizes) <= 64
  shown = collections.Counter(r["image"] for r in records if "image" in r)
  assert counts["shared_images"] == sum(count > 1 for count in shown.values()) > 100


def test_words_are_in_the_vocabulary(pool):
  _, _, records, _ = pool
  texts = [turn["value"] for record in records for turn in record["conversations"]]
  used = {word for text in texts for word in tokens(text.removeprefix("<image>\n"))}
  assert used <= set(vocabulary())
  assert len(vocabulary()) <= 500
  answers = {answer for task in TASKS.values() for answer in task.answers}
  assert max(len(answer.split()) for answer in answers) == 2


def test_the_same_options_give_the_same_bytes(tmp_path):
  options = PoolOptions(rows=150, seed=7)
  draw_pool(tmp_path / "one", options)
  # Another process, another hash seed: nothing may follow from either.
  code = (
    "import sys\nfrom pathlib import Path\n"
    "from mllm_selector_jax.demo import PoolOptions, draw_pool\n"
    "draw_pool(Path(sys.argv[1]), PoolOptions(rows=150, seed=7))\n"
  )
  root = Path(__file__).parents[3]
  subprocess.run(
    [sys.executable, "-c", code, str(tmp_path / "two")],
    check=True,
    cwd=root,
    env={**os.environ, "PYTHONHASHSEED": "11", "PYTHONPATH": str(root)},
  )
  draw_pool(tmp_path / "other", PoolOptions(rows=150, seed=8))
  one = hash_files(tmp_path / "one")
  assert one == hash_files(tmp_path / "two")
  other = hash_files(tmp_path / "other")
  assert not set(one.values()) & set(other.values())


def test_wrong_answers_can_be_kept_to_some_tasks(tmp_path):
  options = PoolOptions(rows=400, wrong=0.3, wrong_tasks=("shape", "color"))
  draw_pool(tmp_path, options)
  _, truth = read(tmp_path)
  wrong = collections.Counter(row["task"] for row in truth if row["wrong"])
  tasks = collections.Counter(row["task"] for row in truth)
  assert set(wrong) == {"shape", "color"}
  share = wrong.total() / (tasks["shape"] + tasks["color"])
  assert abs(share - 0.3) < 0.03


def test_a_pool_without_noise(tmp_path):
  seen = []
  options = PoolOptions(rows=60, **QUIET)
  draw_pool(tmp_path, options, progress=lambda *done: seen.append(done))
  records, truth = read(tmp_path)
  assert seen[-1] == (60, 60)
  for record, row in zip(records, truth, strict=True):
    assert not row["wrong"] and not row["misaligned"] and row["broken"] is None
    assert row["duplicate_of"] is None
    assert turns_of(record)[1] == row["answers"] and len(row["answers"]) == 1
  assert len({record["id"] for record in records}) == 60
  images = [record["image"] for record in records if "image" in record]
  assert len(set(images)) == len(images)
  assert all(path.endswith(".png") for path in images)


@pytest.mark.parametrize(
  ("mixture", "rows"), [((("fact", 1.0),), 20), ((("value", 2.0),), 1)]
)
def test_pools_of_one_task(tmp_path, mixture, rows):
  draw_pool(tmp_path, PoolOptions(rows=rows, mixture=mixture, **QUIET))
  records, truth = read(tmp_path)
  assert len(records) == rows
  assert {row["task"] for row in truth} == {mixture[0][0]}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"rows": 0}, "rows is 0"),
    ({"seed": -1}, "seed is -1"),
    ({"wrong": 1.2}, "wrong is 1.2"),
    ({"misaligned": float("nan")}, "misaligned is nan"),
    ({"jpeg": -0.1}, "jpeg is -0.1"),
    ({"rows": 20, "broken": 6}, "0 to 5 may be broken"),
    ({"wrong_tasks": ("shapes",)}, "no task 'shapes'; known are shape"),
    ({"mixture": (("audio", 1.0),)}, "no task 'audio'"),
    ({"mixture": (("text", 0.5), ("text", 0.5))}, "names a task twice"),
    ({"mixture": (("text", 0.0),)}, "not all may be 0"),
    ({"mixture": (("text", 2.0), ("fact", -1.0))}, "none may be below 0"),
    ({"mixture": ()}, "not all may be 0"),
  ],
)
def test_options_that_cannot_be(options, message):
  with pytest.raises(InputError, match=message):
    PoolOptions(**options)


def test_more_noise_than_rows(tmp_path):
  with pytest.raises(InputError, match="misaligned asks for 90 rows"):
    draw_pool(tmp_path, PoolOptions(rows=100, wrong=0.5, misaligned=0.9))
  assert not list(tmp_path.iterdir())
