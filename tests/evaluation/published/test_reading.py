"""Benchmarks beside each other: folders, bad rows, limits, and what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.evaluation.asked_images import Pictures
from mllm_selector_jax.types import ImageOptions, InputError
from tests.evaluation.published import layouts
from tests.fixed_images import fixed_images

IMAGES = fixed_images(0, 4, ImageOptions(size=8, mean=(0.5,) * 3, std=(0.5,) * 3))


def test_tasks_may_have_folders_of_their_own_and_stand_beside_each_other(tmp_path):
  images = tmp_path / "val2014"
  images.mkdir()
  for name, colour in ("42", "blue"), ("73", "red"):
    file = images / f"COCO_val2014_{int(name):012d}.jpg"
    Image.new("RGB", (12, 8), colour).save(file, "JPEG", quality=100, subsampling=0)
  files = layouts.write_vqav2(tmp_path)
  own = layouts.write_lines(
    tmp_path / "own.jsonl", [{"id": 1, "question": "why?", "answers": "so"}]
  )
  spec = f"{own};vqav2:{','.join(files)},{images}"
  questions, _ = tasks.read_questions(spec)
  assert [q.task for q in questions] == ["own", "vqav2", "vqav2"]
  assert tasks.read_questions(spec.split(";"))[0] == questions
  ((tile,),) = Pictures(["/nowhere"], IMAGES, 1_000_000).read(questions[1])
  blue = np.asarray(Image.open(io.BytesIO(layouts.encode("blue"))))[0, 0]
  assert np.abs(tile[4, 4].astype(int) - blue).max() < 6


@pytest.mark.parametrize(
  "spec, message",
  [
    ("vqa2:x.json", "benchmark 'vqa2'.*did you mean vqav2"),
    ("gqa:", "no file. Give gqa:testdev"),
    ("gqa:{folder}/none.json", "none.json: the evaluation file is not there"),
    ("gqa:{folder}/cut.json", "cut.json: not whole JSON"),
    ("gqa:{folder}/list.json", "list.json: expected one JSON object"),
    ("textvqa:{folder}/object.json", "expected a list under \"data\".*'info'"),
    ("vqav2:{folder}/object.json", "1 files; give the files of questions and"),
    ("vqav2:{folder}/object.json,{folder}/object.json", "one must have"),
    ("mme:{folder}/empty", "none of MME's categories"),
    ("ai2d:{folder}/empty", "no questions/"),
    ("mmbench:{folder}/no.tsv", "not a header"),
    ("{folder}/object.json", "no question found.*vqav2:questions.json"),
    ("pope:{folder}/test.jsonl", 'rows set aside: 1.*row 0.*no text in "label"'),
  ],
)
def test_what_cannot_be_read_is_one_message(tmp_path, spec, message):
  (tmp_path / "empty").mkdir()
  (tmp_path / "cut.json").write_text('{"1": {"question"')
  (tmp_path / "list.json").write_text("[1]")
  (tmp_path / "object.json").write_text('{"info": {}}')
  (tmp_path / "no.tsv").write_text("nothing\n")
  row = {"question_id": 1, "image": "x.jpg", "text": "is it?"}
  (tmp_path / "test.jsonl").write_text(json.dumps(row))
  with pytest.raises(InputError, match=message):
    tasks.read_questions(spec.format(folder=tmp_path))


def test_bad_rows_are_set_aside_with_file_and_row(tmp_path):
  good = layouts.mmbench_rows()[0]
  rows = [
    good,
    good | {"index": 8, "answer": ""},
    good | {"index": 9, "image": ""},
    good | {"index": 10, "image": "55"},
    good | {"index": 11, "B": ""},
    good | {"index": 12, "answer": "D"},
    good | {"index": "x"},
    good,
  ]
  path = layouts.write_tsv(tmp_path / "dev.tsv", rows)
  questions, aside = tasks.read_questions(f"mmbench:{path}")
  assert {question.group for question in questions} == {"7"}
  reasons = [(item.id, item.reason) for item in aside]
  assert [reason for _, reason in reasons] == [
    "malformed",
    "missing image",
    "missing image",
    "malformed",
    "malformed",
    "malformed",
    "duplicate id",
  ]
  for number, item in enumerate(aside, 1):
    assert item.detail.startswith(f"{path}, row {number}: ")
  with pytest.raises(InputError, match=r"rows set aside: 1.*missing image"):
    lacking = good | {"image": "5"}
    tasks.read_questions(f"mmbench:{layouts.write_tsv(tmp_path / 'x.tsv', [lacking])}")


def test_a_limit_keeps_groups_together(tmp_path):
  rows = [row for index in range(1, 6) for row in layouts.mmbench_rows("red", index)]
  path = layouts.write_tsv(tmp_path / "dev.tsv", rows)
  kept, _ = tasks.read_questions(f"mmbench:{path}", limit=7)
  assert len(kept) == 6 and len({question.group for question in kept}) == 2
  with pytest.raises(InputError, match="limit=2 is less than one group"):
    tasks.read_questions(f"mmbench:{path}", limit=2)
