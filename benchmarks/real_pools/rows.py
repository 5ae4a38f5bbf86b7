"""From pictures and questions to a pool and an evaluation that share no picture.

A picture is named by the SHA-256 of the bytes of its file in the source, which is also
what decides its side: the same source gives the same names, sides and rows with any
version of any library.
"""

import hashlib
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks.real_pools.sources import Source
from mllm_selector_jax import storage
from mllm_selector_jax.types import InputError

LONGEST = 112  # pixels of an image's longer side


class Picture(NamedTuple):
  """An image of a source.

  Attributes:
    data: the bytes of its file.
    group: pictures of one group stay on one side of the split, for instance the frames
      of one object. An empty text stands for the picture alone.
  """

  data: bytes
  group: str = ""


class Question(NamedTuple):
  """A question about a picture, with its answer.

  Attributes:
    picture: the key of the picture in its source.
    task: the kind of question.
  """

  picture: str
  task: str
  text: str
  answer: str


Drawn = tuple[dict[str, Picture], list[Question]]


@dataclass(frozen=True)
class Pool:
  """How one pool is made.

  Attributes:
    name: of the pool and its folder.
    sources: what is read.
    read: returns the pictures and all questions, given the folder of the sources.
    rows: at most so many rows of each task in the pool.
    asked: at most so many questions of each task in the evaluation.
    share: of the groups of pictures that the evaluation has, in percent.
    sha256: of the pool.json and eval.jsonl that the stated versions give.
  """

  name: str
  sources: Sequence[Source]
  read: Callable[[Path], Drawn]
  rows: dict[str, int]
  asked: dict[str, int]
  share: int
  sha256: str = field(default="")


def digest(*parts: str | bytes) -> str:
  """SHA-256 of some parts, in hexadecimal digits."""
  whole = hashlib.sha256()
  for part in parts:
    part = part.encode() if isinstance(part, str) else part
    whole.update(len(part).to_bytes(8, "big") + part)
  return whole.hexdigest()


def split_pictures(
  pictures: dict[str, Picture], share: int
) -> tuple[dict[str, str], set[str]]:
  """Names the pictures and draws the evaluation's.

  A group is drawn by the smallest name in it. Groups that hold the same picture count
  as one.

  Returns:
    the name of each picture, and the names that the evaluation has.
  """
  names = {key: digest(picture.data)[:16] for key, picture in pictures.items()}
  parent: dict[str, str] = {}

  def find(node: str) -> str:
    while parent.setdefault(node, node) != node:
      node = parent[node]
    return node

  for key, picture in pictures.items():
    parent[find(f"group {picture.group or names[key]}")] = find(names[key])
  members = defaultdict(list)
  for name in set(names.values()):
    members[find(name)].append(name)
  asked: set[str] = set()
  for group in members.values():
    if int(min(group), 16) % 100 < share:
      asked.update(group)
  return names, asked


def choose(
  questions: Iterable[Question], names: dict[str, str], most: dict[str, int]
) -> list[Question]:
  """Takes the first questions of each task by their hash, and mixes the tasks.

  Of questions that are the same for the same picture and have the same answer, one is
  taken. Tasks that `most` does not name have no rows.
  """
  keyed = {digest(names[q.picture], q.task, q.text, q.answer): q for q in questions}
  taken: dict[str, int] = defaultdict(int)
  chosen = {}
  for key, question in sorted(keyed.items()):
    if taken[question.task] < most.get(question.task, 0):
      taken[question.task] += 1
      chosen[digest("order", key)] = question
  return [question for _, question in sorted(chosen.items())]


def make_record(pool: str, number: int, image: str | None, text: str, answer: str):
  """A row in LLaVA's form; `source` names the pool."""
  human = text if image is None else f"<image>\n{text}"
  turns = [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]
  record = {"id": f"{pool}-{number:05d}", "source": pool}
  return record | ({} if image is None else {"image": image}) | {"conversations": turns}


def make_questions(
  pool: str, chosen: Iterable[Question], names: dict[str, str], every: list[Question]
) -> list[dict]:
  """The evaluation's records; all answers that the source gives to one are right."""
  answers: dict[tuple[str, str], list[str]] = defaultdict(list)
  for q in every:
    if q.answer not in answers[names[q.picture], q.text]:
      answers[names[q.picture], q.text].append(q.answer)
  asked = {(names[q.picture], q.text): q for q in chosen}
  return [
    {
      "id": f"{pool}-asked-{number:04d}",
      "image": f"{image}.png",
      "question": text,
      "answers": answers[image, text],
      "task": q.task,
    }
    for number, ((image, text), q) in enumerate(asked.items())
  ]


def save_picture(data: bytes, path: Path) -> None:
  """Writes a picture as RGB on white, its longer side at most LONGEST pixels."""
  with Image.open(io.BytesIO(data)) as image:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
    image.save(path)


def write_json(path: Path, value: object) -> None:
  """Writes a list of records a line each, or any other value, as JSON."""
  if isinstance(value, list):
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in value)
    text = f"[\n{lines}\n]\n"
  else:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
  with storage.writing(path) as partial:
    partial.write_text(text, encoding="utf-8")


def make_pool(pool: Pool, source: Path, out: Path) -> None:
  """Writes `pool.json`, `eval.jsonl`, `tasks.json` and `images/` below OUT/<pool>/.

  A folder whose files have the stated hash is left as it is.

  Raises:
    InputError: a source is missing, or gives another pool than the stated one.
  """
  folder = out / pool.name
  if is_made(folder, pool.sha256):
    return
  pictures, questions = pool.read(source)
  names, asked = split_pictures(pictures, pool.share)
  rows = choose(
    (q for q in questions if names[q.picture] not in asked), names, pool.rows
  )
  tests = [q for q in questions if names[q.picture] in asked]
  records = make_questions(pool.name, choose(tests, names, pool.asked), names, tests)
  shutil.rmtree(folder, ignore_errors=True)
  (folder / "images").mkdir(parents=True)
  used = {names[q.picture] for q in rows} | {r["image"][:-4] for r in records}
  data = {name: pictures[key].data for key, name in names.items() if name in used}
  for name in sorted(used):
    save_picture(data[name], folder / "images" / f"{name}.png")
  (folder / "eval.jsonl").write_text(
    "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
    encoding="utf-8",
  )
  write_json(folder / "tasks.json", name_tasks(pool.name, rows))
  # The pool is written last: a folder that has one is whole.
  write_json(
    folder / "pool.json",
    [
      make_record(pool.name, number, f"{names[q.picture]}.png", q.text, q.answer)
      for number, q in enumerate(rows)
    ],
  )
  check_made(folder, pool.sha256)


def name_tasks(pool: str, rows: list[Question]) -> dict[str, str]:
  """The task of each row by its id."""
  return {f"{pool}-{number:05d}": q.task for number, q in enumerate(rows)}


def hash_made(folder: Path) -> str:
  """The hash of a pool's rows and questions."""
  files = (folder / "pool.json", folder / "eval.jsonl")
  return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def is_made(folder: Path, stated: str) -> bool:
  """Whether a folder already has the pool with the stated hash."""
  return (folder / "pool.json").is_file() and hash_made(folder) == stated


def check_made(folder: Path, stated: str) -> None:
  """Refuses a pool that is not the one that results were measured on."""
  found = hash_made(folder)
  if found != stated:
    raise InputError(
      f"{folder}: pool.json and eval.jsonl have sha256 {found}, not {stated}. The "
      f"sources are others than those that the results were measured on. Fetch the "
      f"stated versions, or change the stated hash and measure anew."
    )
