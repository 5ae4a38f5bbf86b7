"""Tiny files in the layouts that benchmarks are published in, written on the spot."""

import base64
import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encode(colour="red", form="PNG"):
  buffer = io.BytesIO()
  Image.new("RGB", (12, 8), colour).save(buffer, form)
  return buffer.getvalue()


def write_json(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))
  return str(path)


def write_lines(path, values):
  path.write_text("".join(json.dumps(value) + "\n" for value in values))
  return str(path)


def write_parquet(path, rows):
  """Rows with images as Hugging Face's datasets write them."""
  kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
  columns = {name: [row[name] for row in rows] for name in rows[0]}
  arrays = {
    name: pa.array(values, kind) if name == "image" else pa.array(values)
    for name, values in columns.items()
  }
  pq.write_table(pa.table(arrays), path)
  return str(path)


def inside(colour="red", path=None):
  return {"bytes": encode(colour), "path": path}


def annotators(*answers):
  return [
    {"answer": answer, "answer_confidence": "yes", "answer_id": number}
    for number, answer in enumerate(answers, 1)
  ]


def write_vqav2(folder, answers=("red",) * 10):
  questions = {
    "info": {},
    "task_type": "Open-Ended",
    "data_type": "mscoco",
    "data_subtype": "val2014",
    "license": {},
    "questions": [
      {"image_id": 42, "question": "What colour is it?", "question_id": 42000},
      {"image_id": 73, "question": "Is it red?", "question_id": 73001},
    ],
  }
  annotations = {
    "info": {},
    "data_subtype": "val2014",
    "annotations": [
      {
        "question_type": "is",
        "multiple_choice_answer": "yes",
        "answers": annotators(*["yes"] * 7, "no", "", "maybe"),
        "image_id": 73,
        "answer_type": "yes/no",
        "question_id": 73001,
      },
      {
        "question_type": "what color",
        "multiple_choice_answer": "red",
        "answers": annotators(*answers),
        "image_id": 42,
        "answer_type": "other",
        "question_id": 42000,
      },
    ],
  }
  name = "v2_OpenEnded_mscoco_val2014_questions.json"
  return [
    write_json(folder / name, questions),
    write_json(folder / "v2_mscoco_val2014_annotations.json", annotations),
  ]


def mmbench_rows(colour="red", index=7, options=("cow", "cat", "dog"), answer="B"):
  """A question with its rotations, as MMBench's table has them."""
  rows = []
  for turn in range(len(options)):
    turned = [*options[turn:], *options[:turn]]
    rows.append(
      {
        "index": index + turn * 1_000_000,
        "question": 'Which is "it"?',
        "hint": "Look\nwell" if index == 7 else "",
        **dict(zip("ABCD", [*turned, ""][:4], strict=False)),
        "answer": "ABCD"[("ABCD".index(answer) - turn) % len(options)],
        "category": "object_localization",
        "image": base64.b64encode(encode(colour)).decode() if turn != 1 else str(index),
        "source": "test",
        "l2-category": "fine",
        "comment": "",
        "split": "dev",
      }
    )
  return rows


def write_tsv(path, rows):
  with open(path, "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0], delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
  return str(path)


def write_mme(folder):
  """Both layouts of a category's folder."""
  flat, split = folder / "color", folder / "landmark"
  flat.mkdir(parents=True)
  (split / "images").mkdir(parents=True)
  (split / "questions_answers_YN").mkdir()
  (flat / "0001.jpg").write_bytes(encode("red", "JPEG"))
  (flat / "0001.txt").write_text(
    "Is it red? Please answer yes or no.\tYes\n"
    "Is it blue? Please answer yes or no.\tNo\n"
  )
  (split / "images" / "a.png").write_bytes(encode())
  (split / "questions_answers_YN" / "a.txt").write_text(
    "Is this a photo of Rome? Please answer yes or no.\tYes\n"
    "Is this a photo of Bonn? Please answer yes or no.\tNo\n"
  )
  (folder / "eval_tool").mkdir()
  return str(folder)
