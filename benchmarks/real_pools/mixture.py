"""The mixture that practitioners have: many sources, some of little worth.

2,000 rows: the pools and easy-VQA in uneven shares; 15 % text alone; `scraped`, further
rows of the pools of which 12 % have the answer of another row of the same kind;
`codes`, a task that the evaluation does not ask for (random letters to be read off a
drawn image); and 3 % copies of other rows, every second one with its image encoded
anew. The evaluation asks as many questions of each pool and of easy-VQA; their
`category` is the pool's own kind of question. `source` of a record and the folder of
its image name the source. `truth.json` says which rows are wrong, with the right
answer, which are copies, with the id of the other, and the kind of each row.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from benchmarks.real_pools import text_rows
from benchmarks.real_pools.rows import check_made, digest, is_made, write_json
from mllm_selector_jax.types import InputError

NAME = "mixture"
EASY = "easy_vqa"
ROWS = {"rooms": 400, "emoji": 225, "photos": 225, EASY: 200, "signs": 120}
SCRAPED = {"rooms": 100, "photos": 70, "signs": 70}
WRONG = 0.12  # of the scraped rows
TEXTS = {"alpaca": 150, "trivia": 150}
CODES = 230
COPIES = 60
ASKED = 120  # questions of each pool
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
SIZE = (112, 48)  # pixels of a code's image
SHA256 = "770328f271fc8e6de893347a762907e4b3ea9aa7a3b0df37adba392d20700243"


class Row(NamedTuple):
  """A row before it is written.

  Attributes:
    image: the path of its image; None of text alone.
    name: of the image below the source's folder.
    task: the kind of question, with the pool's name.
  """

  id: str
  source: str
  task: str
  text: str
  answer: str
  image: Path | None = None
  name: str = ""


def order(rows: Iterable[Row], *salt: str) -> list[Row]:
  """Sorts rows by a hash of their ids."""
  return sorted(rows, key=lambda row: digest(*salt, row.id))


def read_rows(source: str, records: list[dict], images: Path, tasks) -> list[Row]:
  """Reads records of one question each; `tasks` gives the kind by id and question."""
  rows = []
  for record in records:
    human, answer = (turn["value"] for turn in record["conversations"])
    text = human.removeprefix("<image>\n")
    task = f"{source}: {tasks(record['id'], text)}"
    name = record["image"].replace("/", "-")
    image = images / record["image"]
    rows.append(Row(record["id"], source, task, text, answer, image, name))
  return rows


def read_pool(folder: Path) -> list[Row]:
  """Reads a pool that `rows.make_pool` has made."""
  if not (folder / "pool.json").is_file():
    raise InputError(f"{folder} has no pool.json. Make this pool before the mixture.")
  tasks = json.loads((folder / "tasks.json").read_text())
  records = json.loads((folder / "pool.json").read_text())
  return read_rows(folder.name, records, folder / "images", lambda id, text: tasks[id])


def name_easy(text: str) -> str:
  """The kind of a question of easy-VQA."""
  if text.startswith(("is ", "does ", "are ")):
    return "yes or no"
  return "colour" if "color" in text else "shape"


def read_easy(folder: Path, file: str) -> list[Row]:
  """Reads a file of easy-VQA in LLaVA's form."""
  records = json.loads((folder / file).read_text())
  return read_rows(EASY, records, folder / "images", lambda id, text: name_easy(text))


def scrape(rows: Iterable[Row], share: float) -> tuple[list[Row], dict[str, str]]:
  """Renames rows to the noisy source, and gives a share of them a wrong answer.

  Returns:
    the rows, and the right answer of each wrong one by its id.
  """
  rows = [
    row._replace(id=f"scraped-{number:05d}", source="scraped")
    for number, row in enumerate(rows)
  ]
  spoiled: dict[str, Row] = {}
  for row in order(rows, "wrong"):
    others = [o for o in rows if o.task == row.task and o.answer != row.answer]
    if others and len(spoiled) < round(share * len(rows)):
      spoiled[row.id] = row._replace(answer=order(others, row.id)[0].answer)
  truth = {row.id: row.answer for row in rows if row.id in spoiled}
  return [spoiled.get(row.id, row) for row in rows], truth


def copy_rows(rows: list[Row], count: int) -> tuple[list[Row], dict[str, str]]:
  """Repeats rows under other ids; every second has its image as a new JPEG.

  Returns:
    the copies, and the id of the row that each copies.
  """
  copies, truth = [], {}
  for number, row in enumerate(order(rows, "copy")[:count]):
    copy = row._replace(id=f"copy-{number:05d}")
    if row.name and number % 2:
      copy = copy._replace(name=f"{Path(row.name).stem}-anew.jpg")
    copies.append(copy)
    truth[copy.id] = row.id
  return copies, truth


def make_codes(count: int) -> list[Row]:
  """Rows that ask for the random letters of an image."""
  rows = []
  for number in range(count):
    value = int(digest("code", str(number)), 16)
    code = "".join(LETTERS[value >> 5 * place & 31] for place in range(6))
    text = "Transcribe the code in the image, letter by letter."
    name = f"{number:05d}.png"
    rows.append(Row(f"codes-{number:05d}", "codes", "codes", text, code, None, name))
  return rows


def draw_code(code: str, path: Path) -> None:
  """Draws letters as black text on grey."""
  image = Image.new("RGB", SIZE, "lightgrey")
  draw = ImageDraw.Draw(image)
  draw.text((4, 12), code, fill="black", font=ImageFont.load_default(18))
  image.save(path)


def make_texts(source: Path) -> list[Row]:
  """Rows of text alone."""
  readers = {"alpaca": text_rows.read_alpaca, "trivia": text_rows.read_trivia}
  rows = []
  for name, count in TEXTS.items():
    pairs = sorted(set(readers[name](source)), key=lambda pair: digest(*pair))
    rows += [
      Row(f"{name}-{number:05d}", name, name, *pair)
      for number, pair in enumerate(pairs[:count])
    ]
  return rows


def mix(pools: dict[str, list[Row]], others: list[Row]) -> tuple[list[Row], dict]:
  """Puts the mixture together.

  Args:
    pools: all rows of each pool and of easy-VQA.
    others: rows without an image, and the useless source's.

  Returns:
    the rows in a mixed order, and what truth.json holds.
  """
  pools = {name: order(rows) for name, rows in pools.items()}
  rows = [row for name, count in ROWS.items() for row in pools[name][:count]]
  rest = [
    row
    for name, count in SCRAPED.items()
    for row in pools[name][ROWS[name] : ROWS[name] + count]
  ]
  scraped, wrong = scrape(rest, WRONG)
  rows = [*rows, *scraped, *others]
  copies, copied = copy_rows(rows, COPIES)
  wrong |= {copy: wrong[id] for copy, id in copied.items() if id in wrong}
  rows = order([*rows, *copies], "mixed")
  tasks = {row.id: row.task for row in rows}
  return rows, {"wrong": wrong, "copies": copied, "tasks": tasks}


def save_image(row: Row, path: Path) -> None:
  """Writes a row's image: as it is, or anew as JPEG."""
  if path.exists():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  if row.image is None:
    draw_code(row.answer, path)
  elif path.suffix == row.image.suffix:
    shutil.copyfile(row.image, path)
  else:
    with Image.open(row.image) as image:
      image.convert("RGB").save(path, quality=85)


def make_question(row: Row) -> dict:
  """A question of easy-VQA in the form of the pools' evaluations."""
  question = row.text.strip()
  kind = row.task.partition(": ")[2]
  asked = {"id": row.id, "image": row.name, "question": question}
  return asked | {"answers": [row.answer], "task": kind}


def ask(out: Path, easy: Path, folder: Path) -> list[dict]:
  """The evaluation's questions, with their images below the folder."""
  asked = []
  tests = order(read_easy(easy, "eval.json"))
  kinds = sorted({row.task for row in tests})
  most = ASKED // len(kinds)
  tests = [r for kind in kinds for r in [t for t in tests if t.task == kind][:most]]
  for name in ROWS:
    if name == EASY:
      pairs = [(make_question(row), row.image) for row in tests]
    else:
      lines = (out / name / "eval.jsonl").read_text().splitlines()[:ASKED]
      records = [json.loads(line) for line in lines]
      pairs = [(r, out / name / "images" / r["image"]) for r in records]
    for record, image in pairs:
      place = Path("asked", name, record["image"])
      (folder / "images" / place).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(image, folder / "images" / place)
      category = record["task"]
      asked.append(record | {"image": str(place), "task": name, "category": category})
  return asked


def make_record(row: Row) -> dict:
  """A row in LLaVA's form."""
  named = {} if not row.name else {"image": f"{row.source}/{row.name}"}
  human = f"<image>\n{row.text}" if row.name else row.text
  turns = [{"from": "human", "value": human}, {"from": "gpt", "value": row.answer}]
  return {"id": row.id, "source": row.source} | named | {"conversations": turns}


def make_mixture(source: Path, out: Path, easy: Path) -> None:
  """Writes `pool.json`, `eval.jsonl`, `truth.json` and `images/` below OUT/mixture/.

  Raises:
    InputError: a pool or a source is missing, or gives another mixture.
  """
  folder = out / NAME
  if is_made(folder, SHA256):
    return
  pools = {name: read_pool(out / name) for name in ROWS if name != EASY}
  pools[EASY] = read_easy(easy, "pool.json")
  rows, truth = mix(pools, [*make_texts(source), *make_codes(CODES)])
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  for row in rows:
    if row.name:
      save_image(row, folder / "images" / row.source / row.name)
  lines = (json.dumps(record, ensure_ascii=False) for record in ask(out, easy, folder))
  (folder / "eval.jsonl").write_text("".join(f"{line}\n" for line in lines))
  write_json(folder / "truth.json", truth)
  write_json(folder / "pool.json", [make_record(row) for row in rows])
  check_made(folder, SHA256)
