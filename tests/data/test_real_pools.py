"""Pools of third-party images: split, mixed and read, from tiny drawn sources."""

import collections
import dataclasses
import io
import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from benchmarks.real_pools import mixture, photos, rooms, rows, signs, text_rows
from benchmarks.real_pools.rows import Picture, Question
from benchmarks.real_pools.sources import Package, Repository
from mllm_selector_jax.types import InputError

TRIVIA = """#Q How many legs do ants have?
^ 6
A 10
B 6

#Q Which of
these is a bird?
^ Owl
A Owl
B Cat

#Q Which animal barks?
^ Dog
A Cat
B Dog
"""


def draw(number: int, mode: str = "RGB") -> bytes:
  """The file of an image of one colour, 200 pixels wide and 100 high."""
  file = io.BytesIO()
  shade = (number % 256, number // 256, 0, 128)[: len(mode)]
  Image.new(mode, (200, 100), shade).save(file, "PNG")
  return file.getvalue()


def commit(folder, files: dict[str, bytes]) -> Repository:
  """Commits files below `folder/owner+name`, as a source that can be read."""
  place = folder / "owner+name"
  for name, data in files.items():
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(data)
  git = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@b.c"]
  for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Add the images"]):
    subprocess.run([*git, *command], check=True)
  done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True)
  return Repository("owner/name", done.stdout.decode().strip(), "none")


@pytest.fixture
def pool(tmp_path):
  """A pool on a repository of 60 images, each with two questions."""
  source = commit(tmp_path, {f"images/{n}.png": draw(n) for n in range(60)})

  def read(folder):
    names = source.list_names(folder, "images/")
    pictures = {name: Picture(data) for name, data in source.read(folder, names)}
    asked = [Question(name, "name", "What?", f"thing {name[7:-4]}") for name in names]
    return pictures, asked + [Question(name, "kind", "Sort?", "red") for name in names]

  return rows.Pool("drawn", (source,), read, {"name": 30, "kind": 10}, {"name": 9}, 30)


def make(pool, source, out) -> rows.Pool:
  """Makes a pool without a stated hash; returns it with the hash."""
  with pytest.raises(InputError, match="are others than those"):
    rows.make_pool(pool, source, out)
  return dataclasses.replace(pool, sha256=rows.hash_made(out / pool.name))


def read_made(folder):
  records = json.loads((folder / "pool.json").read_text())
  lines = (folder / "eval.jsonl").read_text().splitlines()
  return records, [json.loads(line) for line in lines]


def test_pictures_of_one_group_or_of_the_same_content_stay_together():
  pictures = {f"{n}": Picture(draw(n), f"track {n // 5}") for n in range(500)}
  pictures["copy"] = pictures["7"]._replace(group="track 80")
  names, asked = rows.split_pictures(pictures, 25)
  sides = collections.defaultdict(set)
  for key, picture in pictures.items():
    sides[picture.group].add(names[key] in asked)
  assert all(len(side) == 1 for side in sides.values())
  assert sides["track 1"] == sides["track 80"]
  assert 0.1 < np.mean([True in side for side in sides.values()]) < 0.4
  backwards = dict(reversed(pictures.items()))
  assert rows.split_pictures(backwards, 25) == (names, asked)


def test_a_pool_shares_no_image_with_its_questions(tmp_path, pool):
  make(pool, tmp_path, tmp_path / "out")
  folder = tmp_path / "out/drawn"
  records, asked = read_made(folder)
  tasks = json.loads((folder / "tasks.json").read_text())
  count = collections.Counter(tasks[record["id"]] for record in records)
  assert count == {"name": 30, "kind": 10} and len(asked) == 9

  def shades(items):
    paths = [folder / "images" / item["image"] for item in items]
    return {Image.open(path).getpixel((0, 0)) for path in paths}

  assert not shades(records) & shades(asked)
  for item in asked:
    with Image.open(folder / "images" / item["image"]) as image:
      assert image.size == (112, 56)
      assert item["answers"] == [f"thing {image.getpixel((0, 0))[0]}"]
  human, answer = records[0]["conversations"]
  assert human["value"].startswith("<image>\n") and answer["from"] == "gpt"


def test_a_pool_is_the_same_again_and_is_kept(tmp_path, pool):
  first = make(pool, tmp_path, tmp_path / "first")
  rows.make_pool(first, tmp_path, tmp_path / "second")
  made = tmp_path / "second/drawn/images"
  for path in made.iterdir():
    again = tmp_path / "first/drawn/images" / path.name
    assert again.read_bytes() == path.read_bytes()
  (made / "mark").touch()
  rows.make_pool(first, tmp_path, tmp_path / "second")
  assert (made / "mark").exists()


def test_transparent_parts_become_white(tmp_path):
  rows.save_picture(draw(0, "RGBA"), tmp_path / "a.png")
  assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (127, 127, 127)


def test_all_answers_of_the_source_are_right():
  questions = [Question("a", "thing", "What?", answer) for answer in ("cup", "jug")]
  made = rows.make_questions("drawn", questions, {"a": "name"}, questions)
  assert [record["answers"] for record in made] == [["cup", "jug"]]


def test_a_missing_source_is_said(tmp_path):
  with pytest.raises(InputError, match="git clone --bare"):
    rooms.SOURCE.read_one(tmp_path, "dataset/all_qa_pairs.txt")
  with pytest.raises(InputError, match="npm pack some@1"):
    Package("some", "1.0.0", "MIT").read_one(tmp_path, "emoji.json")
  source = commit(tmp_path, {"a": b"1"})
  with pytest.raises(InputError, match="lacks b"):
    source.read_one(tmp_path, "b")


@pytest.mark.parametrize(
  ("text", "place", "task"),
  [
    ("what is on the table", "in the image12 ?", "thing"),
    ("how many lamps are there", "in the image 12 ?", "number"),
    ("what is left of the bed", "in image12 ?", "side"),
    ("what color is the door", "in the image12", "colour"),
  ],
)
def test_questions_about_rooms(text, place, task):
  found = rooms.read_pair(f"{text} {place}", "garbage_bin")
  assert found == Question("image12", task, f"{text}?", "garbage bin")
  assert rooms.read_pair("what is this ?", "cup") is None


def test_every_sign_has_a_meaning():
  meanings = [signs.describe(label) for label in range(43)]
  assert len(set(meanings)) == 43
  assert meanings[14] == ("stop", "right of way", "octagon")
  assert meanings[1] == ("speed limit 30", "ban", "circle")
  assert meanings[25] == ("road work", "warning", "triangle")


def test_photos_are_asked_for_what_they_show():
  asked = {q.task: q.answer for q in photos.ask("a", "ship")}
  assert asked["name"] == "ship" and asked["place"] == "on water"
  assert asked["person"] == "captain" and "count" not in asked
  answers = [q for n in range(99) for q in photos.ask(f"{n}", "dog")]
  yes_no = [q for q in answers if q.task == "yes or no"]
  assert {(q.text == "Is this a dog?", q.answer) for q in yes_no} == {
    (True, "yes"), (False, "no")
  }  # fmt: skip


def test_trivia_of_one_line_is_read():
  asked = dict(text_rows.parse_trivia(TRIVIA))
  assert list(asked.values()) == ["6", "Dog"]
  assert next(iter(asked)).splitlines()[:2] == ["How many legs do ants have?", "10, 6"]


@pytest.fixture(scope="module")
def mixed():
  """The mixture of drawn rows, with what it was made of."""
  pools = {
    name: [
      mixture.Row(f"{name}-{n}", name, f"{name}: {n % 3}", "What?", f"{n // 3 % 7}")
      for n in range(1200)
    ]
    for name in mixture.ROWS
  }
  texts = [mixture.Row(f"text-{n}", "text", "text", "Why?", "So.") for n in range(300)]
  others = [*texts, *mixture.make_codes(mixture.CODES)]
  return (pools, *mixture.mix(pools, others))


def test_the_mixture_has_its_shares(mixed):
  _, made, truth = mixed
  ids = [row.id for row in made]
  assert len(made) == len(set(ids)) == 2000 and set(truth["tasks"]) == set(ids)
  own = [row for row in made if row.id not in truth["copies"]]
  count = collections.Counter(row.source for row in own)
  assert count["text"] == 300 == 0.15 * len(made)
  assert count["scraped"] == sum(mixture.SCRAPED.values())
  assert {name: count[name] for name in mixture.ROWS} == mixture.ROWS
  assert len(truth["copies"]) == 60 == 0.03 * len(made)


def test_wrong_rows_have_the_answer_of_another_of_their_kind(mixed):
  pools, made, truth = mixed
  by_id = {row.id: row for row in made}
  wrong = [by_id[id] for id in truth["wrong"] if id not in truth["copies"]]
  assert len(wrong) == round(0.12 * sum(mixture.SCRAPED.values()))
  for row in wrong:
    assert row.source == "scraped" and row.answer != truth["wrong"][row.id]
    source = row.task.partition(":")[0]
    kind = [other for other in pools[source] if other.task == row.task]
    assert row.answer in {other.answer for other in kind}


def test_copies_repeat_their_rows_wrong_or_not(mixed):
  _, made, truth = mixed
  by_id = {row.id: row for row in made}
  for id, copied in truth["copies"].items():
    copy, row = by_id[id], by_id[copied]
    assert copy._replace(id=row.id, name=row.name) == row
    assert (id in truth["wrong"]) == (copied in truth["wrong"])


def test_copies_have_their_image_as_it_is_or_anew(tmp_path):
  (tmp_path / "a.png").write_bytes(draw(9))
  row = mixture.Row("a", "rooms", "t", "What?", "cup", tmp_path / "a.png", "a.png")
  copies, _ = mixture.copy_rows([row, row._replace(id="b")], 2)
  assert [copy.name for copy in copies] == ["a.png", "a-anew.jpg"]
  for copy in copies:
    mixture.save_image(copy, tmp_path / "out" / copy.name)
    with Image.open(tmp_path / "out" / copy.name) as image:
      assert image.size == (200, 100)
      assert image.format == ("JPEG" if copy.name.endswith("jpg") else "PNG")


def test_a_code_is_drawn_within_its_image(tmp_path):
  codes = mixture.make_codes(50)
  assert len({row.answer for row in codes}) == 50
  mixture.draw_code("WWWWWW", tmp_path / "wide.png")
  ink = np.asarray(Image.open(tmp_path / "wide.png").convert("L")) < 100
  assert ink.any() and not ink[:, -1].any() and not ink[[0, -1]].any()
