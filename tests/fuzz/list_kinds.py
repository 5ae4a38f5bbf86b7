"""Lists of rows, target shares, score tables, cards and questions."""

import contextlib
import inspect
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mllm_selector_jax.configs import default

from mllm_selector_jax.data.files import id_list
from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.inputs import given_shares, lists
from mllm_selector_jax.pipeline import card
from mllm_selector_jax.scoring import score_table
from mllm_selector_jax.types import InputError
from tests.evaluation.published import test_published
from tests.fuzz.kinds import TAKEN, Kind, write_json

PUBLISHED = Path(__file__).parents[2] / "docs" / "published" / "drawn-21-50"
IDS = {
  "ids.txt": "a\nb\nrow=3\nhash=abc\n",
  "lines.txt": f'{id_list.HEADER}\na\t0\tff\n"b\tc"\t1\t\n',
  "table.csv": 'id,row,hash,score\na,0,ff,1.5\n"b,c",1,,-2\n',
  "table.tsv": "id\thash\tscore\na\tff\t1\n",
  "ids.json": '["a", 3, "b"]',
  "rows.json": '[{"id": "a", "row": 0, "hash": "ff", "score": 1}, {"row": 5}]',
  "records.jsonl": '{"id": "a", "conversations": [{"from": "human", "value": "q"},'
  ' {"from": "gpt", "value": "a"}]}\n{"id": "b", "query": "q", "response": "r"}\n',
}


def write_ids(folder: Path, number: int) -> None:
  if number < len(IDS):
    name, text = list(IDS.items())[number]
    (folder / name).write_text(text)
    return
  columns = {"id": ["a", "b"], "row": [0, 1], "hash": ["f", ""], "kept": [True, False]}
  pq.write_table(pa.table({**columns, "score": [0.5, 2.0]}), folder / "list.parquet")


def read_ids(folder: Path) -> str:
  (path,) = folder.iterdir()
  lists.read_references(str(path), "select.pinned")
  with contextlib.suppress(InputError):  # no example of ids alone has scores
    lists.read_references(f"{path}@-score", "select.pinned")
  return TAKEN


def write_shares(folder: Path, number: int) -> None:
  write_json(folder / "shares.json", {"a": 0.5, "b": 1, "c d": 2e-3})


def read_shares(folder: Path) -> str:
  given_shares.read_shares(str(folder / "shares.json"))
  return TAKEN


class _Pool:
  """What `read_elsewhere` reads of a pool: hashes and ids."""

  hash = np.array([f"{n:064x}" for n in range(6)], object)
  id = np.array([f"id-{n}" for n in range(6)], object)


def write_scores(folder: Path, number: int) -> None:
  count = len(_Pool.hash)
  (folder / "embeddings").mkdir()
  for part in range(1 + number):
    rows = np.array_split(np.arange(count), 1 + number)[part]
    columns = {
      "row": rows,
      "id": _Pool.id[rows],
      "hash": _Pool.hash[rows],
      "supervised": rows + 1,
      "loss": rows.astype(np.float32),
      "seed": rows % 2 == 0,
      "entropy": rows.astype(np.float32) / 3,
    }
    pq.write_table(pa.table(columns), folder / f"part-{part:05d}.parquet")
    embeddings = np.ones((len(rows), 3), np.float16)
    np.save(folder / "embeddings" / f"part-{part:05d}.npy", embeddings)


def read_scores(folder: Path) -> str:
  ok = np.ones(len(_Pool.hash), bool)
  score_table.list_columns(folder)
  scored = score_table.read_elsewhere(folder, _Pool, ok, ["entropy"])
  assert len(np.unique(scored.row)) == len(scored.row) == ok.sum()
  return TAKEN


def write_card(folder: Path, number: int) -> None:
  shutil.copytree(PUBLISHED, folder, dirs_exist_ok=True)


def read_card(folder: Path) -> str:
  card.verify(folder, default.get_config())
  return TAKEN


def record_questions(folder: Path) -> list[str]:
  """Tasks in the layout of every benchmark, as its own test writes and reads them."""
  specs: list[str] = []
  read = tasks.read_questions

  def note(spec, *rest, **named):
    specs.append(spec)
    return read(spec, *rest, **named)

  functions = [
    (name, function)
    for name, function in vars(test_published).items()
    if name.startswith("test_")
    and list(inspect.signature(function).parameters) == ["tmp_path"]
  ]
  for name, function in functions:
    (folder / name).mkdir()
    with mock.patch.object(tasks, "read_questions", note):
      function(folder / name)
  return [spec for spec in specs if _is_read(spec)]


def _is_read(spec: str) -> bool:
  with contextlib.suppress(InputError):
    return bool(tasks.read_questions(spec)[0])
  return False


OWN = (
  '{"id": 1, "question": "q?", "answers": ["a", "b"], "image": "a.png", "task": "t"}\n'
  '{"id": "b", "question": "<image> q?", "answers": "A", "choices": ["x", "y"],'
  ' "image": ["a.png"], "metric": "multiple_choice", "category": 3, "group": "g"}\n'
  '{"id": 3, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt",'
  ' "value": "a"}], "source": "s"}\n'
)


def make_question_kinds() -> Iterator[Kind]:
  """One kind a task: the files of its folder, and the task that names them."""
  root = Path(tempfile.mkdtemp())
  try:
    specs = record_questions(root)
    copies = {}
    for spec in specs:
      test = root / Path(spec.replace(f"{root}/", "")).parts[0].partition(":")[2]
      copies[spec] = test.name
    for number, spec in enumerate(dict.fromkeys(specs)):
      yield _make_question_kind(number, root / copies[spec], spec)
  finally:
    shutil.rmtree(root)
  yield _make_own_kind()


def _make_question_kind(number: int, source: Path, spec: str) -> Kind:
  from tests.fuzz.kinds import read_files

  files = read_files(source)

  def write(folder: Path, _: int) -> None:
    for name, data in files.items():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      (folder / name).write_bytes(data)

  def read(folder: Path) -> str:
    questions, _ = tasks.read_questions(spec.replace(str(source), str(folder)))
    assert questions
    return TAKEN

  name = spec.partition(":")[0]
  return Kind(f"questions {name} {number}", write, read, share=1)


def _make_own_kind() -> Kind:
  def write(folder: Path, number: int) -> None:
    (folder / "own.jsonl").write_text(OWN)

  def read(folder: Path) -> str:
    questions, aside = tasks.read_questions(str(folder / "own.jsonl"))
    assert len(questions) + len(aside) > 0
    return TAKEN

  return Kind("questions own", write, read, share=6)


def list_kinds() -> list[Kind]:
  return [
    Kind("ids", write_ids, read_ids, len(IDS) + 1, share=10),
    Kind("shares", write_shares, read_shares, share=3),
    Kind("scores", write_scores, read_scores, 2, share=1),
    Kind("card", write_card, read_card, share=0.1),
    *make_question_kinds(),
  ]
