"""Evaluation files and questions that cannot be, through the command line."""

import json
import os

import pytest

from mllm_selector_jax.main import run
from mllm_selector_jax.runs import holder
from tests.bad_input.pools import encode, picture, see, talk, write_pool
from tests.evaluation.published import layouts

RUN = {
  "seed__rows": "100%",
  "seed__epochs": 1,
  "tune__epochs": 1,
  "select__budget": "100%",
  "select__control": False,
  "evaluate__max_new_tokens": 2,
}
ASK = {"id": "q", "question": "which shape?", "answers": ["round"]}


@pytest.fixture
def pool(tmp_path):
  write_pool(tmp_path, [see("a", "a.png"), see("b", "b.png"), talk("c", "why so?")])
  for name, colour in ("a.png", "red"), ("b.png", "blue"):
    (tmp_path / "images" / name).write_bytes(encode(picture(colour), "PNG"))
  return tmp_path


def write(folder, *rows):
  return layouts.write_lines(folder / "ask.jsonl", rows)


@pytest.mark.parametrize(
  "row, words",
  [
    (ASK | {"metric": "bleu"}, ["row 1 at byte", "metric is 'bleu'", "exact_match"]),
    (None, ["benchmark 'vqa'", "did you mean"]),
  ],
)
def test_an_unknown_metric_or_benchmark_ends_before_anything_is_tuned(
  command, pool, row, words
):
  tasks = write(pool, ASK | {"id": 0}, row or ASK)
  status, said = command("run", evaluate__tasks=tasks if row else f"vqa:{tasks}", **RUN)
  assert status == 2 and all(word in said for word in words), said
  assert not (pool / "work/seed").exists()


def test_missing_images_and_answers_are_set_aside_with_file_and_row(command, pool):
  tasks = write(
    pool,
    ASK | {"question": "please, why is this so?"},  # nearly the pool's: told
    ASK | {"id": "no answer", "answers": []},
    ASK | {"id": "no image", "image": "gone.png"},
    ASK | {"id": "seen", "image": "a.png"},
  )
  status, said = command("run", evaluate__tasks=tasks, **RUN)
  assert status == 0, said
  assert "Warning: Leakage: 1 of 3 evaluation questions" in said
  assert "1 are nearly the same question, without an image" in said
  assert "2 questions; 2 set aside" in said
  assert f"malformed: 1; the first: {tasks}, row 1 at byte" in said
  assert f"missing image: 1; the first: {tasks}, row 2 at byte" in said
  found = json.loads((pool / "work/arms/main/evaluation/results.json").read_text())
  assert found["aside"]["reasons"] == {"malformed": 1, "missing image": 1}


def test_questions_of_the_pool_are_named_and_refused_unless_allowed(command, pool):
  copy = pool / "other"
  copy.mkdir()
  (copy / "renamed.bmp").write_bytes(encode(picture("red"), "BMP"))  # a.png's pixels
  (copy / "green.png").write_bytes(encode(picture("green"), "PNG"))
  tasks = write(
    pool,
    ASK,
    ASK | {"id": "image", "image": "renamed.bmp", "question": "What color?"},
    ASK | {"id": "near", "image": "renamed.bmp", "question": "What is the color?"},
    ASK | {"id": "own image", "image": "green.png", "question": "What color?"},
    ASK | {"id": "text", "question": "WHY so?", "task": "talk"},
  )
  settings = RUN | {"evaluate__tasks": tasks, "evaluate__images": copy}
  status, said = command("run", **settings)
  assert status == 2, said
  assert "3 of 5 evaluation questions are also in the pool" in said
  assert "2 are the same question about the same image, or both without one" in said
  assert "1 are the same image and nearly the same question" in said
  assert "By task: ask 2, talk 1" in said
  assert f"{tasks}, row 1 at byte" in said and "is row 0 of the pool" in said
  assert "evaluate.allow_leakage=True" in said
  assert not (pool / "work/seed").exists()
  found = json.loads((pool / "work/leakage/leakage.json").read_text())
  assert {(leak["id"], leak["row"]) for leak in found["leaks"]} == {
    ("image", 0),
    ("near", 0),
    ("text", 2),
  }
  status, said = command("run", evaluate__allow_leakage=True, **settings)
  assert status == 0 and said.count("Warning: Leakage: 3 of 5") == 1, said
  assert "leakage is unchanged, kept" in said


def test_a_benchmark_with_its_images_inside_is_asked(command, pool):
  rows = layouts.mmbench_rows("green")
  table = layouts.write_tsv(pool / "dev.tsv", rows)
  mme = layouts.write_mme(pool / "MME")
  status, said = command("run", evaluate__tasks=f"mmbench:{table};mme:{mme}", **RUN)
  assert status == 0, said
  found = json.loads((pool / "work/arms/main/evaluation/results.json").read_text())
  assert found["tasks"]["mmbench"]["count"] == 1
  assert found["tasks"]["mme"]["count"] == 4
  assert found["tasks"]["mme"]["totals"]["categories"].keys() == {"color", "landmark"}
  lines = (pool / "work/arms/main/evaluation/predictions.jsonl").read_text()
  assert len(lines.splitlines()) == 7


def test_two_runs_or_two_arms_never_write_to_one_folder(command, pool, capsys):
  tasks = write(pool, ASK)
  (pool / "work").mkdir()
  (pool / "alias").symlink_to(pool / "work")
  with holder.lock(pool / "alias"):
    for name in ("compare", "run", "evaluate"):
      given = [name, "--config=demo", f"--config.evaluate.tasks={tasks}"]
      assert run(["mllm-selector", *given, f"--workdir={pool / 'work'}"]) == 2
      assert f"in use by process {os.getpid()} on host" in capsys.readouterr().err
  settings = {"evaluate__tasks": tasks, "compare__budgets": "50%,50.0%"}
  status, said = command("compare", **settings)
  assert status == 2 and "two arms would write to arms/" in said, said
  assert not (pool / "work/arms").exists()
