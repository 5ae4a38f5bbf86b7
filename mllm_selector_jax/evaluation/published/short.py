"""Benchmarks with short answers: VQAv2, GQA, VizWiz, TextVQA, ChartQA, DocVQA."""

import itertools
import os
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.evaluation import question_files
from mllm_selector_jax.evaluation.published.benchmark import (
  Benchmark,
  Source,
  answer_list,
  first,
  label,
  need_files,
  short,
  text,
)
from mllm_selector_jax.evaluation.question_files import Row
from mllm_selector_jax.types import InputError, RowError

UNANSWERABLE = (
  "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
)


def _is_parquet(path: str) -> bool:
  question_files.check_file(path)
  return question_files.is_parquet(path)


def _read_files(source: Source) -> Iterator[Row]:
  return itertools.chain.from_iterable(map(question_files.read_rows, source.files))


def read_vqav2(source: Source) -> Iterator[Row]:
  """Reads questions and joins their annotations, or reads Parquet files with both."""
  if all(map(_is_parquet, source.files)):
    yield from _read_files(source)
    return
  what = "the files of questions and of annotations, or Parquet files"
  paths = need_files(source, 2, 2, what)
  objects = {}
  for path in paths:
    value = question_files.read_object(path)
    objects |= {
      kind: (path, value) for kind in ("questions", "annotations") if kind in value
    }
  if len({path for path, _ in objects.values()}) != 2:
    raise InputError(
      f'{paths[0]}, {paths[1]}: one must have "questions", the other "annotations".'
    )
  annotations = {
    name: row.value
    for row in question_files.list_members(*objects["annotations"], "annotations")
    if (name := label(row.value, "question_id")) is not None
  }
  path, value = objects["questions"]
  # Image names contain the split, such as "val2014". Those of the split "test-dev2015"
  # contain "test2015".
  split = str(value.get("data_subtype", "val2014")).replace("-dev", "")
  for row in question_files.list_members(path, value, "questions"):
    if row.error is None:
      number = row.value.get("image_id")
      annotation = annotations.get(label(row.value, "question_id"), {})
      image = f"COCO_{split}_{number:012d}.jpg" if isinstance(number, int) else None
      row = row._replace(value={"image": image, **annotation, **row.value})
    yield row


def convert_vqav2(row: Row) -> dict[str, Any]:
  value = row.value
  return {
    "id": value.get("question_id"),
    "image": _need_image(value),
    "question": short(text(value, "question")),
    "answers": answer_list(value, "answers"),
    "metric": "vqa",
    "category": value.get("answer_type"),
  }


def _need_image(value: dict[str, Any]) -> str:
  if not isinstance(image := value.get("image"), str) or not image:
    raise RowError("missing image", "the row names no image")
  return image


def read_gqa(source: Source) -> Iterator[Row]:
  """Reads a JSON file of questions by id, or Parquet files of questions and images."""
  if not all(map(_is_parquet, source.files)):
    need_files(source, 1, 1, "one JSON file of questions, or Parquet files")
    yield from question_files.read_keyed(source.files[0])
    return
  asked, places = [], {}
  for row in _read_files(source):
    if row.error is None and "question" not in row.value:
      if (name := label(row.value, "id")) is not None:
        places[name] = row.places
    else:
      asked.append(row)
  for row in asked:
    inside = places.get(label(row.value, "imageId"), row.places)
    yield row._replace(places=inside)


def convert_gqa(row: Row) -> dict[str, Any]:
  value = row.value
  return {
    "id": value.get("id"),
    "image": f"{text(value, 'imageId')}.jpg",
    "question": short(text(value, "question")),
    "answers": answer_list(value, "answer"),
    "metric": "gqa",
  }


def convert_vizwiz(row: Row) -> dict[str, Any]:
  value = row.value
  image = _need_image(value)
  return {
    "id": first(value, "question_id", "image"),
    "image": image,
    "question": short(text(value, "question").strip() + UNANSWERABLE),
    "answers": answer_list(value, "answers"),
    "metric": "textvqa",
    "category": first(value, "answer_type", "category"),
  }


def read_data(source: Source) -> Iterator[Row]:
  """Reads the list under "data" of JSON files (TextVQA, DocVQA), or Parquet files."""
  for path in source.files:
    if _is_parquet(path):
      yield from question_files.read_rows(path)
    else:
      yield from question_files.list_members(
        path, question_files.read_object(path), "data"
      )


def convert_textvqa(row: Row) -> dict[str, Any]:
  value = row.value
  inside = bool(row.places)
  return {
    "id": value.get("question_id"),
    "image": value["image"] if inside else f"{text(value, 'image_id')}.jpg",
    "question": short(text(value, "question")),
    "answers": answer_list(value, "answers"),
    "metric": "textvqa",
  }


def convert_chartqa(row: Row) -> dict[str, Any]:
  value = row.value
  stem = os.path.splitext(os.path.basename(row.path))[0]
  kind = first(value, "type", "human_or_machine")
  kind = {0: "human", 1: "augmented"}.get(kind, kind) or stem
  image = value["image"] if row.places else text(value, "imgname")
  return {
    "id": f"{stem}-{row.number}",
    "image": image,
    "question": short(text(value, "query", "question")),
    "answers": answer_list(value, "label", "answer"),
    "metric": "chartqa",
    "category": next((n for n in ("human", "augmented") if n in str(kind)), str(kind)),
  }


def convert_docvqa(row: Row) -> dict[str, Any]:
  value = row.value
  return {
    "id": value.get("questionId"),
    "image": _need_image(value),
    "question": short(text(value, "question")),
    "answers": answer_list(value, "answers"),
    "metric": "anls",
  }


BENCHMARKS = {
  "vqav2": Benchmark("questions.json,annotations.json", read_vqav2, convert_vqav2),
  "gqa": Benchmark("testdev_balanced_questions.json", read_gqa, convert_gqa),
  "vizwiz": Benchmark("val.json", _read_files, convert_vizwiz),
  "textvqa": Benchmark("TextVQA_0.5.1_val.json", read_data, convert_textvqa),
  "chartqa": Benchmark(
    "test_human.json,test_augmented.json", _read_files, convert_chartqa
  ),
  "docvqa": Benchmark("val_v1.0_withQT.json", read_data, convert_docvqa),
}
