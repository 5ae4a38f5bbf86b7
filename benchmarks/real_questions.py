"""Captions and questions about pictures, for the real base; and asking a base.

    python -m benchmarks.real_questions --model=BASE --tasks=POOL/eval.jsonl \
      --images=POOL/images --workdir=runs/asked

asks a base, as it is, the questions of a pool, with the prompt for short answers.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import headline_real
from benchmarks.real_pictures import INKS, SHAPES, LabelledPicture, draw_canvas
from mllm_selector_jax.demo.language import a
from mllm_selector_jax.demo.scenes import chance, pick
from mllm_selector_jax.evaluation.asking import evaluate_model
from mllm_selector_jax.inputs import base_model, questions
from mllm_selector_jax.runs import context

BRIEF = "\nAnswer the question using a single word or phrase."
DESCRIBE = ("Describe the picture.", "What does the picture show?", "Write a caption.")
TASKS = ("color", "shape", "presence", "count", "text")


def write_pool(
  folder: Path,
  drawn: Sequence[LabelledPicture],
  others: Sequence[LabelledPicture],
  rows: int,
  seed: int,
) -> None:
  """Writes `pool.json` and `images/`: captions and short questions, half of each.

  Args:
    folder: to write into.
    drawn, others: pictures; a half is of each, as far as there are so many.
    rows: how many rows are written.
    seed: of the choice.
  """
  rng = np.random.default_rng([seed, 5])
  (folder / "images").mkdir(parents=True)
  count = min(len(others), rows // 2)
  held = [others[i] for i in rng.permutation(len(others))[:count]]
  held += drawn[: rows - count]
  records = []
  for number in range(len(held)):
    picture, name = held[number], f"{number:06d}.png"
    asked = [*picture.questions, *dict(ask_places(rng, picture)).values()]
    if asked and chance(rng, 0.5):
      question, answer = pick(rng, asked)
      question += BRIEF
    else:
      question, answer = pick(rng, DESCRIBE), picture.caption
    picture.image.save(folder / "images" / name)
    turns = [("human", f"<image>\n{question}"), ("gpt", answer)]
    records.append(
      {
        "id": f"{number:06d}",
        "image": name,
        "conversations": [{"from": who, "value": text} for who, text in turns],
      }
    )
  (folder / "pool.json").write_text(json.dumps(records))


def ask_places(
  rng: np.random.Generator, picture: LabelledPicture
) -> Iterator[tuple[str, tuple[str, str]]]:
  """Yields tasks with questions and answers that follow from the labels of places."""
  named = [labels for _, labels in picture.places or () if len(labels) == 3]
  for color, shape, _ in named:
    if sum(shape == other[1] for other in named) == 1:
      yield "color", (f"Which color does the {shape} have?", color)
    if sum(color == other[0] for other in named) == 1:
      yield "shape", (f"Which form does the {color} thing have?", shape)
  if named:
    names = [name for *_, name in named]
    wanted = pick(rng, names)
    if chance(rng, 0.5):
      wanted = f"{pick(rng, tuple(INKS))} {pick(rng, SHAPES)}"
    answer = "yes" if wanted in names else "no"
    yield "presence", (f"Can {a(wanted)} be seen?", answer)
    count = ("one", "two", "three", "four")[len(named) - 1]
    yield "count", ("What is the number of things?", count)
  letters = [label.split()[-1] for label in picture.labels if label[:7] == "letter "]
  if letters:
    yield "text", ("Which text is shown?", "".join(letters))


def write_questions(folder: Path, count: int, seed: int) -> None:
  """Writes `eval.jsonl` and `images/`: so many drawn questions of each task."""
  (folder / "images").mkdir(parents=True)
  missing, lines = dict.fromkeys(TASKS, count), []
  number = 0
  while any(missing.values()):
    rng = np.random.default_rng([seed, 6, number])
    number += 1
    picture = draw_canvas(rng)
    for task, (question, answer) in dict(ask_places(rng, picture)).items():
      if missing[task]:
        missing[task] -= 1
        name = f"{number:06d}.png"
        picture.image.save(folder / "images" / name)
        line = {"image": name, "question": question + BRIEF, "answers": [answer]}
        lines.append({"id": f"{task}-{number}", "task": task, **line})
  (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def ask(model: Path, tasks: str, images: str, workdir: Path, limit: int = 0) -> dict:
  """Asks a model questions; returns results.json and writes the answers.

  Args:
    model: directory of the model.
    tasks, images: as for `evaluate.tasks` and `evaluate.images`.
    workdir: for the log and `predictions.jsonl`.
    limit: most questions; 0 asks all.
  """
  cfg = headline_real.get_config()
  settings = {
    "model.path": str(model),
    "evaluate.tasks": tasks,
    "evaluate.images": images,
    "evaluate.limit": limit,
  }
  for key, value in settings.items():
    section, name = key.split(".")
    cfg[section][name] = value
  with context.open_run(cfg, str(workdir)) as run:
    asked, faulty = questions.read_questions(run)
    encoder = base_model.read_encoder(run)
    config, params = base_model.read_model(run, base_model.base_path(run))
    results, predictions = evaluate_model(
      config, params, encoder, questions.image_folders(run), asked, cfg.evaluate.batch,
      cfg.evaluate.max_new_tokens, aside=faulty,
    )  # fmt: skip
  lines = "".join(json.dumps(line) + "\n" for line in predictions)
  (workdir / "predictions.jsonl").write_text(lines)
  return results


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--model", type=Path, required=True)
  parser.add_argument("--tasks", required=True)
  parser.add_argument("--images", required=True)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--limit", type=int, default=0)
  arguments = parser.parse_args()
  results = ask(**vars(arguments))
  for task, value in results["tasks"].items():
    print(f"{task}: {value['value']:.3f} of {value['count']}")
  print(f"all: {results['overall']['value']:.3f}")


if __name__ == "__main__":
  main()
