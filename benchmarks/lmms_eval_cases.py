"""Generated cases of each metric, marked by us and by lmms-eval's own functions."""

import importlib
import importlib.metadata
import importlib.util
import pathlib
import random
import string
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mllm_selector_jax.evaluation import metrics

WORDS = (
  "the a an red Dog dogs dog's dont don't couldnt've somebody'd one Two none ten yes"
  " no Yes No not U.S. x-ray left/right 3.5 1,000 1,,000 50% .5 0 -7 1e3 it's (A) B."
  " ... ' ?"
).split()
SPACES = (" ", " ", " ", "  ", "\n", "\t", "")
LETTERS = "ABCDE"
COUNTS = (1, 2, 3, *[10] * 17)  # of annotators
MARKS = ";/[]\"{}()=+\\_-><@`,?!.:'"


class Case(NamedTuple):
  """One comparison: ours and theirs, and why they may differ (None: they may not)."""

  ours: Any
  theirs: Any
  shown: Any
  reason: str | None = None


class Theirs:
  """lmms-eval's modules, each alone."""

  def __init__(self, folder: str | None):
    if folder is None:
      found = importlib.util.find_spec("lmms_eval")
      if found is None:
        raise SystemExit("lmms-eval is not installed; see --help, or give --lmms_eval.")
      self.root = pathlib.Path(next(iter(found.submodule_search_locations)))
      self.version = f"lmms-eval {importlib.metadata.version('lmms_eval')}"
    else:
      self.root = pathlib.Path(folder) / "lmms_eval"
      self.version = f"lmms-eval in {pathlib.Path(folder).name}"
    # Packages without their __init__, which would import torch and the rest.
    for name in (
      "",
      ".api",
      ".filters",
      ".tasks",
      ".tasks._task_utils",
      ".tasks.mmbench",
    ):
      package = types.ModuleType(f"lmms_eval{name}")
      package.__path__ = [str(self.root.joinpath(*name.strip(".").split(".")))]
      sys.modules[package.__name__] = package

  def load(self, name: str) -> Any:
    """`tasks.pope.utils` and the like, without the packages that it lies in."""
    parts = name.split(".")
    path = self.root.joinpath(*parts).with_suffix(".py")
    if f"lmms_eval.{name}" in sys.modules:
      return sys.modules[f"lmms_eval.{name}"]
    spec = importlib.util.spec_from_file_location(f"lmms_eval.{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def draw_text(rng: random.Random, most: int = 4) -> str:
  """Words and marks; sometimes any characters. Stripped, as answers are."""
  if rng.random() < 0.15:
    return "".join(rng.choices(string.printable, k=rng.randint(0, 12))).strip()
  parts = []
  for _ in range(rng.randint(0, most)):
    word = rng.choice(WORDS)
    if rng.random() < 0.25:
      word = rng.choice(MARKS) + word
    if rng.random() < 0.25:
      word += rng.choice(MARKS)
    parts += [word, rng.choice(SPACES)]
  return "".join(parts).strip()


def draw_answers(rng: random.Random, prediction: str, count: int) -> list[str]:
  """Annotators' answers, some of them the prediction or near it."""
  near = [
    prediction,
    prediction.upper(),
    f"the {prediction}",
    prediction + ".",
    *(draw_text(rng) for _ in range(8)),
  ]
  return [rng.choice(near).strip() for _ in range(count)]


def vqa_cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  utils = theirs.load("tasks.vqav2.utils")
  while True:
    prediction = draw_text(rng)
    answers = draw_answers(rng, prediction, rng.choice(COUNTS))
    doc = {
      "question_id": 1,
      "answers": [{"answer": a, "answer_id": n} for n, a in enumerate(answers)],
    }
    got = utils.vqav2_process_results_val(doc, [prediction])["exact_match"]
    alone = (
      "one annotator alone: equality counts, there 0" if len(answers) == 1 else None
    )
    yield Case(
      metrics.mark("vqa", prediction, answers), got, (prediction, answers), alone
    )


def textvqa_cases(name: str) -> Callable[[Theirs, random.Random], Iterator[Case]]:
  def cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
    process = getattr(theirs.load(f"tasks.{name}.utils"), f"{name}_process_results")
    while True:
      prediction = draw_text(rng)
      answers = draw_answers(rng, prediction, rng.choice(COUNTS))
      doc = {"question_id": 1, "answers": list(answers)}
      got = process(doc, [prediction])["exact_match"]
      alone = (
        "one annotator alone: equality counts, there 0" if len(answers) == 1 else None
      )
      yield Case(
        metrics.mark("textvqa", prediction, answers), got, (prediction, answers), alone
      )

  return cases


def match_cases(name: str, **options: bool) -> Callable[..., Iterator[Case]]:
  def cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
    api = theirs.load("api.metrics")
    while True:
      prediction = draw_text(rng)
      (answer,) = draw_answers(rng, prediction, 1)
      got = api.exact_match_hf_evaluate([prediction], [answer], **options)
      bare = str.maketrans("", "", string.punctuation)
      outer = any(
        x != x.strip() for x in (prediction.translate(bare), answer.translate(bare))
      )
      reason = (
        "spaces left outside by dropped marks: ours strips them" if outer else None
      )
      yield Case(
        metrics.mark(name, prediction, [answer]),
        float(got["exact_match"]),
        (prediction, answer),
        reason,
      )

  return cases


def anls_cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  api = theirs.load("api.metrics")
  while True:
    prediction = draw_text(rng)
    answers = draw_answers(rng, prediction, rng.randint(1, 4))
    got = api.anls(answers, [prediction])["anls"]
    yield Case(metrics.mark("anls", prediction, answers), got, (prediction, answers))


def chartqa_cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  utils = theirs.load("tasks.chartqa.utils")
  while True:
    number = rng.choice((0.0, 1.0, rng.uniform(-9, 9), rng.uniform(0, 1e6)))
    change = rng.choice((0, 0.04, 0.05, 0.051, -0.05, -0.06, 1))
    written = [f"{number:.3g}", f"{number * (1 + change):.6g}", f"{100 * number:.4g}%"]
    written += ["nan", "inf", "-inf", draw_text(rng, 2), draw_text(rng, 2)]
    prediction, answer = (rng.choice(written) for _ in range(2))
    if rng.random() < 0.2:
      answer = prediction.swapcase()
    got = float(utils.relaxed_correctness(prediction, answer))
    odd = any(
      x.strip().lower().strip("+-%") in ("nan", "inf", "infinity")
      for x in (prediction, answer)
    )
    reason = "nan or inf is compared as text, there as a number" if odd else None
    yield Case(
      metrics.mark("chartqa", prediction, [answer]), got, (prediction, answer), reason
    )


def scienceqa_cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  utils = theirs.load("tasks.scienceqa.utils")
  while True:
    count = rng.randint(2, 5)
    doc = {"choices": ["x"] * count, "answer": rng.randrange(count)}
    prediction = draw_letter(rng, LETTERS[doc["answer"]])
    got = utils.sqa_process_results(doc, [prediction])["exact_match"]
    sentence = "The answer is" in prediction
    yield Case(
      metrics.mark("multiple_choice", prediction, [LETTERS[doc["answer"]]]),
      got,
      (prediction, doc["answer"]),
      '"The answer is X" is read (LLaVA\'s evaluation does), there not'
      if sentence
      else None,
    )


def draw_letter(rng: random.Random, right: str = "A") -> str:
  letter = rng.choice([right, right, right.lower(), *LETTERS, *LETTERS.lower()])
  forms = (
    "{}", "{}.", "{}. dog", "{}.dog", "({})", "{})", "{}:", "{},", " {}. x", "({}).",
    ":{}",
    "The answer is {}.", "The answer is {}", "the answer is {}", "I say {}", "{} or B",
    "A {} here now", "U.S.", "",
  )  # fmt: skip
  text = rng.choice(forms).format(letter)
  return text if rng.random() < 0.8 else f"{text} {draw_text(rng, 2)}".strip()


def ai2d_cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  theirs.load("api.filter")
  theirs.load("filters.extraction")
  read = theirs.load("tasks.ai2d.utils").MultiChoiceRegexFilter()
  api = theirs.load("api.metrics")
  while True:
    answer = rng.choice(LETTERS)
    prediction = draw_letter(rng, answer).strip()
    (found,) = read.apply([[prediction]], [{}])
    got = api.exact_match_hf_evaluate(
      [found], [answer], ignore_case=True, ignore_punctuation=True
    )
    bare = found.translate(str.maketrans("", "", string.punctuation))
    reason = None
    if bare != bare.strip():
      reason = "spaces left outside by dropped marks: ours strips them"
    yield Case(
      metrics.mark("ai2d", prediction, [answer]),
      float(got["exact_match"]),
      (prediction, answer),
      reason,
    )


def mmbench_cases(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  theirs.load("tasks._task_utils.mcq_extract")
  evals = theirs.load("tasks.mmbench.mmbench_evals")
  judge = evals.MMBench_Evaluator()
  while True:
    count = rng.randint(2, 4)
    choices = rng.sample(["dog", "Dog house", "cat", "red", "the left"], count)
    prediction = draw_letter(rng)
    if rng.random() < 0.5:
      prediction = rng.choice([*choices, " or ".join(choices)]).lower()
    item = {x: float("nan") for x in "ABCD"} | dict(zip("ABCD", choices, strict=False))
    got = judge.prefetch_answer(item | {"prediction": prediction}) or None
    yield Case(metrics.infer_option(prediction, choices), got, (prediction, choices))
