"""Benchmarks' published files, in their true layouts, as questions."""

import pytest

from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.evaluation.asked_images import Pictures
from mllm_selector_jax.evaluation.question import LETTER_PROMPT, SHORT_PROMPT
from mllm_selector_jax.types import ImageOptions
from tests.evaluation.published import layouts
from tests.fixed_images import fixed_images

IMAGES = fixed_images(0, 4, ImageOptions(size=8, mean=(0.5,) * 3, std=(0.5,) * 3))


def read(spec):
  """Questions by id, none of whose rows was set aside."""
  questions, aside = tasks.read_questions(spec)
  assert not aside, aside
  out = {question.id: question for question in questions}
  assert len(out) == len(questions)
  return out


def short(question):
  return f"{question}\n{SHORT_PROMPT}"


def name_image(question):
  """The name of a question's only image."""
  (image,) = question.images
  return image.name


def see(question, folders=()):
  """The colour of a question's image."""
  ((tile,),) = Pictures(list(folders), IMAGES, 1_000_000).read(question)
  centre = tile[4, 4].astype(int)
  return {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 128, 0): "green"}[tuple(centre)]


def test_vqav2(tmp_path):
  files = layouts.write_vqav2(tmp_path)
  found = read(f"vqav2:{','.join(files)}")
  assert read(f"VQAv2:{','.join(files[::-1])}").keys() == found.keys()
  one = found[42000]
  assert (one.task, one.metric, one.category) == ("vqav2", "vqa", "other")
  assert name_image(one) == "COCO_val2014_000000000042.jpg"
  assert one.question == short("What colour is it?")
  assert one.answers == ("red",) * 10
  assert found[73001].answers == ("yes",) * 7 + ("no", "", "maybe")
  assert files[0] in one.where


def test_vqav2_parquet(tmp_path):
  row = {
    "question_id": 1,
    "question": "what?",
    "answers": layouts.annotators("a", "b"),
    "answer_type": "other",
    "image": layouts.inside("blue", "x.jpg"),
  }
  found = read(f"vqav2:{layouts.write_parquet(tmp_path / 'v.parquet', [row])}")
  assert found[1].answers == ("a", "b") and name_image(found[1]) == "x.jpg"
  assert see(found[1]) == "blue"


def test_gqa(tmp_path):
  value = {
    "201307251": {
      "imageId": "n161313",
      "question": "Is it overcast?",
      "answer": "no",
      "fullAnswer": "No, it is clear.",
      "isBalanced": True,
      "types": {"structural": "verify"},
    }
  }
  path = layouts.write_json(tmp_path / "testdev_balanced_questions.json", value)
  (one,) = read(f"gqa:{path}").values()
  assert (one.id, name_image(one), one.metric) == ("201307251", "n161313.jpg", "gqa")
  assert one.question == short("Is it overcast?") and one.answers == ("no",)


def test_gqa_parquet_has_its_images_in_another_file(tmp_path):
  asked = [
    {"id": "1", "imageId": "n1", "question": "a?", "answer": "x"},
    {"id": "2", "imageId": "n2", "question": "b?", "answer": "y"},
  ]
  seen = [
    {"id": "n2", "image": layouts.inside("blue")},
    {"id": "n1", "image": layouts.inside("red")},
  ]
  files = [
    layouts.write_parquet(tmp_path / "asked.parquet", asked),
    layouts.write_parquet(tmp_path / "seen.parquet", seen),
  ]
  found = read(f"gqa:{','.join(files)}")
  assert [see(found[key]) for key in "12"] == ["red", "blue"]


def test_vizwiz(tmp_path):
  answers = layouts.annotators("unanswerable", "unanswerable", "blue")
  rows = [
    {
      "image": "VizWiz_val_00000000.jpg",
      "question": "Which colour is this?",
      "answers": answers,
      "answer_type": "unanswerable",
      "answerable": 0,
    }
  ]
  path = layouts.write_json(tmp_path / "val.json", rows)
  (one,) = read(f"vizwiz:{path}").values()
  assert one.id == name_image(one) == "VizWiz_val_00000000.jpg"
  assert one.question == (
    "Which colour is this?\nWhen the provided information is insufficient, respond"
    f" with 'Unanswerable'.\n{SHORT_PROMPT}"
  )
  assert one.metric == "textvqa" and one.answers == ("unanswerable",) * 2 + ("blue",)


def test_textvqa(tmp_path):
  row = {
    "question": "what is the brand?",
    "image_id": "003a8ae2ef43b901",
    "image_classes": ["Cassette deck"],
    "answers": ["nokia"] * 9 + [""],
    "question_tokens": ["what"],
    "question_id": 34602,
    "set_name": "val",
  }
  value = {"dataset_type": "val", "dataset_version": "0.5.1", "data": [row]}
  path = layouts.write_json(tmp_path / "TextVQA_0.5.1_val.json", value)
  (one,) = read(f"textvqa:{path}").values()
  assert (one.id, name_image(one)) == (34602, "003a8ae2ef43b901.jpg")
  assert one.question == short("what is the brand?") and len(one.answers) == 10
  inside = {k: row[k] for k in ("question", "answers", "question_id")}
  inside["image"] = layouts.inside("green")
  path = layouts.write_parquet(tmp_path / "t.parquet", [inside])
  (one,) = read(f"textvqa:{path}").values()
  assert see(one) == "green"


def test_chartqa(tmp_path):
  files = [
    layouts.write_json(
      tmp_path / f"test_{kind}.json",
      [{"imgname": f"{kind}.png", "query": "How many?", "label": "14"}],
    )
    for kind in ("human", "augmented")
  ]
  found = read(f"chartqa:{','.join(files)}")
  assert list(found) == ["test_human-0", "test_augmented-0"]
  one = found["test_human-0"]
  assert (name_image(one), one.metric, one.category) == (
    "human.png",
    "chartqa",
    "human",
  )
  assert one.question == short("How many?") and one.answers == ("14",)
  assert found["test_augmented-0"].category == "augmented"
  rows = [
    {"type": "human_test", "question": "a", "answer": "1", "image": layouts.inside()},
    {"type": "augmented_test", "question": "b", "answer": "2", "image": None},
  ]
  questions, aside = tasks.read_questions(
    f"chartqa:{layouts.write_parquet(tmp_path / 'c.parquet', rows)}"
  )
  assert [question.category for question in questions] == ["human"]
  assert "row 1" in aside[0].detail


def test_docvqa(tmp_path):
  row = {
    "questionId": 337,
    "question": "What is the date?",
    "question_types": ["form"],
    "image": "documents/xnbl0037_1.png",
    "docId": 279,
    "answers": ["1/8/93", "1 / 8 / 93"],
    "data_split": "val",
  }
  value = {"dataset_name": "SP-DocVQA", "dataset_split": "val", "data": [row]}
  path = layouts.write_json(tmp_path / "val_v1.0_withQT.json", value)
  (one,) = read(f"docvqa:{path}").values()
  assert (one.id, name_image(one), one.metric) == (
    337,
    "documents/xnbl0037_1.png",
    "anls",
  )
  assert one.answers == ("1/8/93", "1 / 8 / 93")


PROBLEM = {
  "question": "Which is a solid?",
  "choices": ["air", "stone"],
  "answer": 1,
  "hint": "",
  "image": None,
  "task": "closed choice",
  "split": "test",
}


def test_scienceqa(tmp_path):
  problems = {
    "4": PROBLEM | {"image": "image.png", "hint": "Stones are hard."},
    "5": PROBLEM,
    "6": PROBLEM | {"split": "train"},
  }
  files = [
    layouts.write_json(tmp_path / "problems.json", problems),
    layouts.write_json(tmp_path / "pid_splits.json", {"test": ["4", "5"]}),
  ]
  found = read(f"scienceqa:{files[0]}")
  assert found.keys() == read(f"scienceqa:{','.join(files)}").keys() == {"4", "5"}
  one = found["4"]
  assert one.question == (
    "Context: Stones are hard.\nWhich is a solid?\nA. air\nB. stone\n" + LETTER_PROMPT
  )
  assert (name_image(one), one.category) == ("test/4/image.png", "image")
  assert one.answers == ("B",) and one.metric == "multiple_choice"
  assert not found["5"].images and found["5"].category == "text"
  rows = [
    {k: PROBLEM[k] for k in ("question", "choices", "answer", "hint")}
    | {"image": image}
    for image in (layouts.inside("blue"), None)
  ]
  found = read(f"scienceqa:{layouts.write_parquet(tmp_path / 's.parquet', rows)}")
  assert see(found["row-0"]) == "blue" and not found["row-1"].images


def test_mmbench_reads_its_rotations(tmp_path):
  rows = layouts.mmbench_rows() + layouts.mmbench_rows("blue", 9, ("no", "yes"), "A")
  found = read(f"mmbench:{layouts.write_tsv(tmp_path / 'dev.tsv', rows)}")
  assert list(found) == [7, 1_000_007, 2_000_007, 9, 1_000_009]
  one = found[7]
  assert one.question == (
    'Look\nwell\nWhich is "it"?\nA. cow\nB. cat\nC. dog\n' + LETTER_PROMPT
  )
  assert found[9].question.startswith('Which is "it"?\nA. no\n')
  assert (one.group, one.category) == ("7", "object_localization")
  for question in found.values():  # the answer is the same option in each
    place = "ABC".index(question.answers[0])
    assert question.choices[place] == ("cat" if question.group == "7" else "no")
  assert [see(q) for q in found.values()] == ["red"] * 3 + ["blue"] * 2


@pytest.mark.parametrize("form", ["tsv", "parquet"])
def test_mmbench_makes_the_rotations_that_a_file_lacks(tmp_path, form):
  whole = layouts.mmbench_rows()
  if form == "tsv":
    path = layouts.write_tsv(tmp_path / "dev.tsv", whole[:1])
  else:
    row = whole[0] | {"image": layouts.inside(), "hint": "Look\nwell"}
    path = layouts.write_parquet(tmp_path / "dev.parquet", [row])
  made = read(f"mmbench:{path}")
  given = read(f"mmbench:{layouts.write_tsv(tmp_path / 'all.tsv', whole)}")
  assert list(made) == list(given)
  for id, question in made.items():
    for name in ("question", "choices", "answers", "group", "category"):
      assert getattr(question, name) == getattr(given[id], name)
    assert see(question) == "red"


def test_ai2d(tmp_path):
  value = {
    "imageName": "0.png",
    "questions": {
      "What eats the crop?": {
        "abcLabel": False,
        "answerTexts": ["fox", "mouse", "owl", "hawk"],
        "correctAnswer": 1,
        "questionId": "0.png-0",
      }
    },
  }
  layouts.write_json(tmp_path / "ai2d/questions/0.png.json", value)
  layouts.write_json(tmp_path / "ai2d/questions/1.png.json", value)
  (tmp_path / "ai2d/images").mkdir()
  (tmp_path / "ai2d/images/0.png").write_bytes(layouts.encode("green"))
  (tmp_path / "ids.csv").write_text("0\n17\n")
  (one,) = read(f"ai2d:{tmp_path / 'ai2d'},{tmp_path / 'ids.csv'}").values()
  assert one.id == "0.png-0" and one.answers == ("B",) and one.metric == "ai2d"
  assert one.question.startswith("What eats the crop?\nA. fox\nB. mouse\n")
  assert see(one) == "green"
  row = {
    "question": "What?",
    "options": ["a", "b"],
    "answer": "1",
    "image": layouts.inside("blue"),
  }
  path = layouts.write_parquet(tmp_path / "a.parquet", [row])
  (one,) = read(f"ai2d:{path}").values()
  assert one.id == "row-0" and one.answers == ("B",) and see(one) == "blue"


def test_pope(tmp_path):
  row = {
    "question_id": 1,
    "image": "COCO_val2014_000000310196.jpg",
    "text": "Is there a snowboard in the image?",
    "label": "yes",
  }
  files = [
    layouts.write_lines(tmp_path / f"coco_pope_{kind}.json", [row])
    for kind in ("adversarial", "popular", "random")
  ]
  found = read(f"pope:{','.join(files)}")
  assert list(found) == ["adversarial-1", "popular-1", "random-1"]
  one = found["popular-1"]
  assert (one.task, one.category, one.metric) == ("pope", "popular", "yes_no")
  assert one.question == short("Is there a snowboard in the image?")
  assert one.answers == ("yes",) and name_image(one) == row["image"]
  rows = [
    {
      "question_id": "1",
      "question": "Is it?",
      "answer": "no",
      "category": kind,
      "image": layouts.inside(),
    }
    for kind in ("random", "popular")
  ]
  found = read(f"pope:{layouts.write_parquet(tmp_path / 'p.parquet', rows)}")
  assert list(found) == ["random-1", "popular-1"]


def test_mme(tmp_path):
  found = read(f"mme:{layouts.write_mme(tmp_path / 'MME')}")
  assert len(found) == 4
  one = found["color/0001-0"]
  assert one.question == short("Is it red?") and one.answers == ("yes",)
  assert (one.group, one.category, one.metric) == ("color/0001", "color", "mme")
  assert found["color/0001-1"].answers == ("no",)
  assert see(found["landmark/a-0"]) == "red"
  rows = [
    {
      "question_id": "code_reasoning/0020.png",
      "image": layouts.inside("blue"),
      "question": "Is 1 printed? Please answer yes or no.",
      "answer": answer,
      "category": "code_reasoning",
    }
    for answer in ("Yes", "No")
  ]
  found = read(f"mme:{layouts.write_parquet(tmp_path / 'm.parquet', rows)}")
  assert {q.group for q in found.values()} == {"code_reasoning/0020.png"}
  assert [q.answers for q in found.values()] == [("yes",), ("no",)]
