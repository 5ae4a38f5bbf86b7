"""Questions of several images: read from files, set aside, and sought in the pool."""

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.evaluation import pool_overlap, tasks
from mllm_selector_jax.evaluation.asked_images import Pictures
from mllm_selector_jax.evaluation.asking import evaluate_model
from mllm_selector_jax.evaluation.question import Question, QuestionImage
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import ImageOptions, RowError
from tests.evaluation.published import layouts
from tests.fixed_images import fixed_images
from tests.models import torch_inputs

ROW = {"id": "q", "answers": ["red"]}
MARKED = "Is it left of <image>\nor <image>\nor <image>?"
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 128, 0)}
IMAGES = fixed_images(0, 4, ImageOptions(size=8, mean=(0.5,) * 3, std=(0.5,) * 3))


def read(folder, *rows):
  return tasks.read_questions(layouts.write_lines(folder / "ask.jsonl", rows))


def name_images(question):
  return [image.name for image in question.images]


def see(question, folders=()):
  """The colours of a question's images."""
  names = {value: name for name, value in COLOURS.items()}
  tiles = Pictures(list(folders), IMAGES, 1_000_000).read(question)
  return [names[tuple(tile[4, 4].tolist())] for (tile,) in tiles]


@pytest.mark.parametrize("field", ["image", "images"])
def test_each_image_stands_at_its_mark(tmp_path, field):
  row = ROW | {field: ["a.png", "b.png", "a.png"], "question": MARKED}
  (question,), aside = read(tmp_path, row)
  assert not aside and question.question == MARKED
  assert name_images(question) == ["a.png", "b.png", "a.png"]


@pytest.mark.parametrize(
  "text, read_as",
  [
    ("Which?", "Which?"),
    ("<image>\n<image>\nWhich?", "Which?"),
    ("<image> <image>\nWhich?", "<image> <image>\nWhich?"),
    ("Which,\n<image> or <image>?", "Which,\n<image> or <image>?"),
  ],
)
def test_a_text_without_marks_is_one_of_images_that_stand_first(
  tmp_path, text, read_as
):
  turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "red"}]
  plain, llava = {"question": text, "answers": "red"}, {"conversations": turns}
  for number, form in enumerate((plain, llava)):
    row = {"id": number, "image": ["a.png", "b.png"], **form}
    (question,), aside = read(tmp_path, row)
    assert not aside and question.question == read_as


def test_options_may_be_images(tmp_path):
  row = {
    "id": 1,
    "question": "Which is like <image>?",
    "images": ["a.png", "b.png", "c.png"],
    "choices": ["<image>", "<image>"],
    "answers": "B",
  }
  (question,), _ = read(tmp_path, row)
  assert "A. <image>\nB. <image>\n" in question.question
  assert question.answers == ("B",)


@pytest.mark.parametrize(
  "row, reason, detail",
  [
    ({"image": ["a", "b"], "question": "<image>?"}, "image marks", "1 <image> in the"),
    ({"image": "a", "question": "<image> <image>"}, "malformed", "empty"),
    ({"image": "a", "question": "<image> <image>?"}, "image marks", "2 <image> in the"),
    ({"question": "<image>?"}, "image marks", "no image"),
    ({"image": [""], "question": "<image>?"}, "missing image", "image is empty"),
    ({"image": ["a", 3], "question": "?"}, "malformed", "image is int, not a path"),
  ],
)
def test_what_a_pool_sets_aside_is_set_aside(tmp_path, row, reason, detail):
  good = ROW | {"id": "good", "question": "?"}
  _, (item,) = read(tmp_path, good, ROW | row)
  assert item.reason == reason and detail in item.detail
  assert item.detail.startswith(f"{tmp_path}/ask.jsonl, row 1 at byte ")


def test_images_may_be_inside_the_file_beside_others_that_are_not(tmp_path):
  (tmp_path / "green.png").write_bytes(layouts.encode("green"))
  kind = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
  inside = [
    layouts.inside("red"),
    {"bytes": None, "path": "green.png"},
    layouts.inside("blue", "named.png"),
  ]
  table = pa.table(
    {
      **{name: pa.array([value]) for name, value in ROW.items()},
      "question": pa.array([MARKED]),
      "images": pa.array([inside], kind),
    }
  )
  pq.write_table(table, tmp_path / "ask.parquet")
  (question,), aside = tasks.read_questions(str(tmp_path / "ask.parquet"))
  assert not aside
  names = ["row 0 of ask.parquet, image 1", "green.png", "named.png"]
  assert name_images(question) == names
  assert see(question, [str(tmp_path)]) == ["red", "green", "blue"]


def test_images_may_be_written_into_json(tmp_path):
  urls = [
    "data:image/png;base64," + base64.b64encode(layouts.encode(colour)).decode()
    for colour in ("blue", "red")
  ]
  rows = [ROW | {"id": n, "images": urls[: n + 1], "question": "?"} for n in range(2)]
  (one, two), aside = read(tmp_path, *rows)
  assert not aside and name_images(one) == ["row 0 of ask.jsonl"]
  assert (see(one), see(two)) == (["blue"], ["blue", "red"])
  docvqa = {"questionId": 1, "question": "?", "image": urls[0], "answers": ["x"]}
  good = docvqa | {"questionId": 2, "image": "x.png"}
  (tmp_path / "docvqa.json").write_text(json.dumps({"data": [docvqa, good]}))
  _, (item,) = tasks.read_questions(f"docvqa:{tmp_path}/docvqa.json")
  assert item.reason == "malformed" and "store it as a file" in item.detail


def test_a_faulty_image_is_named_and_too_many_are_set_aside(tmp_path):
  base = torch_inputs.make_base(tmp_path / "base", "internvl")
  encoder = torch_inputs.open_encoder(base)
  (tmp_path / "a.png").write_bytes(layouts.encode("red"))

  def ask(id, *names):
    images = tuple(QuestionImage(name) for name in names)
    return Question(id, "t", images, "which?", ("red",), where=f"row {id}")

  questions = [
    ask(0, "a.png", "a.png"),
    ask(1, "a.png", "gone.png"),
    ask(2, "a.png", "a.png", "a.png"),
    ask(3, "gone.png"),
  ]
  config = huggingface.read_config(base)
  results, (line,) = evaluate_model(
    config,
    huggingface.read_params(base, config),
    encoder,
    str(tmp_path),
    questions,
    max_new_tokens=2,
    max_images=2,
  )
  assert line["images"] == ["a.png", "a.png"]
  details = [item["detail"] for item in results["aside"]["questions"]]
  assert details[0].startswith("row 1: image 2 of 2: gone.png: ")
  assert details[1] == "row 2: the record has 3, 2 allowed"
  assert details[2].startswith("row 3: gone.png: ")
  assert results["aside"]["reasons"] == {"missing image": 2, "too many images": 1}


def test_an_image_among_others_is_prepared_as_a_row_of_several_has_it(tmp_path):
  base = torch_inputs.make_base(tmp_path / "base", "llava_onevision")
  images = torch_inputs.open_encoder(base).images
  assert images.is_several(2)
  rng = np.random.default_rng(0)
  layouts.Image.fromarray(rng.integers(0, 256, (40, 90, 3), np.uint8)).save(
    tmp_path / "a.png"
  )
  pictures = Pictures([str(tmp_path)], images, 10**6)
  image = QuestionImage("a.png")
  one, two = (
    pictures.read(Question(0, "t", (image,) * count, "?", ("x",))) for count in (1, 2)
  )
  assert len(one[0]) > 1 and [len(tiles) for tiles in two] == [1, 1]
  np.testing.assert_array_equal(two[0], pictures.read_image(image, 3))
  with pytest.raises(RowError, match=r"image 2 of 2: no.png: "):
    pictures.read(Question(0, "t", (image, QuestionImage("no.png")), "?", ("x",)))


@pytest.mark.parametrize(
  "shown, found",
  [
    ("pq", ["both", "first"]),
    ("qp", ["both", "first"]),
    ("xpq", ["both", "first"]),
    ("Pq", ["both"]),
    ("p", ["first"]),
    ("q", []),
    ("", ["text"]),
  ],
)
def test_a_leak_has_all_images_of_the_question(shown, found):
  def ask(id):
    return Question(id, "t", (), "Is it red?", ("x",))

  # The first image of "both" has other pixels where it stands alone.
  asked = [(ask("both"), ["pP", "q"]), (ask("first"), ["p"]), (ask("text"), [])]
  index = pool_overlap.Index(asked)
  leaks = pool_overlap.find_leaks(index, [(7, tuple(shown), ["<image> is it red"])])
  assert sorted(leak.id for leak in leaks) == found
  assert {leak.row for leak in leaks} <= {7}
