"""Benchmarks whose answers are yes or no: POPE, MME."""

import itertools
import os
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.evaluation import question_files
from mllm_selector_jax.evaluation.published.benchmark import (
  Benchmark,
  Source,
  need_files,
  short,
  text,
)
from mllm_selector_jax.evaluation.question_files import Row
from mllm_selector_jax.evaluation.totals import MME_PARTS
from mllm_selector_jax.types import InputError, RowError

_IMAGES = (".jpg", ".jpeg", ".png")
_MME_PROMPT = " Please answer yes or no."  # is replaced by LLaVA's prompt


def _yes_no(value: dict[str, Any], *names: str) -> str:
  answer = text(value, *names).strip().lower().rstrip(".")
  if answer not in ("yes", "no"):
    raise RowError("malformed", f"answer {answer[:40]!r} is neither yes nor no")
  return answer


def _read_files(source: Source) -> Iterator[Row]:
  return itertools.chain.from_iterable(map(question_files.read_rows, source.files))


def convert_pope(row: Row) -> dict[str, Any]:
  value = row.value
  # The category is in the file's name (coco_pope_adversarial.json) or in a column.
  stem = os.path.splitext(os.path.basename(row.path))[0]
  kind = value.get("category") or stem.rpartition("_")[2]
  if (number := value.get("question_id")) is None:
    raise RowError("malformed", 'no "question_id"')
  return {
    "id": f"{kind}-{number}",
    "image": text(value, "image"),
    "question": short(text(value, "text", "question")),
    "answers": _yes_no(value, "label", "answer"),
    "metric": "yes_no",
    "category": kind,
  }


def read_mme(source: Source) -> Iterator[Row]:
  """Reads Parquet files, or MME's folder.

  The folder has a folder for each category, with a text file for each image, which
  holds two questions.
  """
  if source.folder is None:
    yield from _read_files(source)
    return
  need_files(source, 0, 0, "MME's folder alone, or Parquet files")
  known = [name for part in MME_PARTS.values() for name in part]
  present = [n for n in known if os.path.isdir(os.path.join(source.folder, n))]
  if not present:
    raise InputError(
      f"{source.folder}: none of MME's categories is a folder there:"
      f" {', '.join(known)}."
    )
  for category in present:
    yield from _read_category(source.folder, category)


def _read_category(folder: str, category: str) -> Iterator[Row]:
  texts, images = category, category
  inner = os.path.join(category, "questions_answers_YN")
  if os.path.isdir(os.path.join(folder, inner)):
    texts, images = inner, os.path.join(category, "images")
  names = {}
  if os.path.isdir(os.path.join(folder, images)):
    for name in sorted(os.listdir(os.path.join(folder, images))):
      stem, kind = os.path.splitext(name)
      if kind.lower() in _IMAGES:
        names[stem] = os.path.join(images, name)
  for name in sorted(os.listdir(os.path.join(folder, texts))):
    stem, kind = os.path.splitext(name)
    if kind != ".txt":
      continue
    path = os.path.join(folder, texts, name)
    with open(path, encoding="utf-8-sig", errors="replace") as file:
      lines = [line.rstrip("\n") for line in file if line.strip()]
    for number, line in enumerate(lines):
      where = f"{path}, line {number + 1}"
      question, _, answer = line.rpartition("\t")
      value = {
        "question_id": f"{category}/{stem}",
        "image": names.get(stem),
        "question": question.strip(),
        "answer": answer,
        "category": category,
      }
      yield Row(path, where, number, value)


def convert_mme(row: Row) -> dict[str, Any]:
  value = row.value
  category, name = text(value, "category"), text(value, "question_id")
  if not any(category in part for part in MME_PARTS.values()):
    raise RowError("malformed", f"MME has no category {category!r}")
  if value.get("image") is None:
    raise RowError("missing image", f"no image with the name {name}")
  return {
    "id": f"{name}-{row.number}",
    "image": text(value, "image"),
    "question": short(text(value, "question").replace(_MME_PROMPT, "")),
    "answers": _yes_no(value, "answer"),
    "metric": "mme",
    "category": category,
    "group": name,
  }


BENCHMARKS = {
  "pope": Benchmark(
    "coco_pope_adversarial.json,coco_pope_popular.json,coco_pope_random.json",
    _read_files,
    convert_pope,
  ),
  "mme": Benchmark(
    "MME_Benchmark_release_version/", read_mme, convert_mme, inside=True
  ),
}
