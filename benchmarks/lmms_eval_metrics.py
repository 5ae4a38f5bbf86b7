"""Our metrics beside lmms-eval's own functions, on generated cases.

    pip install --no-deps 'lmms-eval>=0.7' evaluate loguru sacrebleu portalocker
    python -m benchmarks.lmms_eval_metrics --cases=5000
    python -m benchmarks.lmms_eval_metrics --lmms_eval=DIR    # a checkout of it

Each task's module is imported by its path, so that lmms-eval's heavy dependencies are
not needed. Cases are drawn from words, numbers and marks that the rules speak of,
answers near the predictions. A case in which we differ on purpose is told by its reason
and counted; any other difference is shown, and the exit status is 1.
"""

import argparse
import collections
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import pathlib
import random
import string
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mllm_selector_jax.evaluation import metrics, totals
from mllm_selector_jax.evaluation.questions import Question
from mllm_selector_jax.evaluation.totals import Marked

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


def mmbench_totals(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  theirs.load("tasks._task_utils.mcq_extract")
  judge = theirs.load("tasks.mmbench.mmbench_evals").MMBench_Evaluator()
  names = ["dog", "cat", "red"]
  while True:
    marked, rows, open_ = [], [], False
    for index in range(8):
      for turn in range(3):
        choices = tuple(names[turn:] + names[:turn])
        answer = "ABC"[-turn % 3]
        right = rng.random() < 0.85
        prediction = rng.choice((answer, "dog")) if right else draw_letter(rng)
        open_ |= metrics.infer_option(prediction, choices) is None
        id = index + turn * 1_000_000
        question = Question(
          id, "t", "x", "?", (answer,), "mmbench", choices, "c", str(index)
        )
        score = metrics.mark("mmbench", prediction, (answer,), choices)
        marked.append(Marked(question, prediction, score))
        options = dict(zip("ABC", choices, strict=True)) | {"D": float("nan")}
        rows.append(
          options
          | {"index": id, "answer": answer, "prediction": prediction, "category": "c"}
        )
    with contextlib.redirect_stdout(io.StringIO()):
      got, _, _ = judge.eval_result(rows, "static")
    yield Case(
      totals.make_totals(marked)["circular"],
      float(got),
      [row["prediction"] for row in rows],
      "no option is told: ours marks wrong, there any letter is searched"
      if open_
      else None,
    )


def pope_totals(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  utils = theirs.load("tasks.pope.utils")
  names = ("accuracy", "precision", "recall", "f1")
  while True:
    free = rng.random() < 0.3
    said = (
      ("yes", "no", "Yes", "No, not it.", "maybe") if free else ("yes", "No", "YES")
    )
    marked, results = [], collections.defaultdict(list)
    for number in range(rng.randint(1, 30)):
      answer, prediction = rng.choice(("yes", "no")), rng.choice(said)
      question = Question(number, "t", "x", "?", (answer,), "yes_no")
      score = metrics.mark("yes_no", prediction, (answer,))
      marked.append(Marked(question, prediction, score))
      doc = {"question_id": number, "answer": answer}
      for key, value in utils.pope_process_results(doc, [prediction]).items():
        results[key].append(value)
    found = totals.make_totals(marked)
    got = [
      getattr(utils, f"pope_aggregate_{name}")(results[f"pope_{name}"])
      for name in ("accuracy", "precision", "recall")
    ] + [utils.pope_aggregate_f1_score(results["pope_f1_score"])]
    yield Case(
      tuple(round(found[name], 12) for name in names),
      tuple(round(value, 12) for value in got),
      [(item.prediction, item.question.answers) for item in marked],
      "free text is read by its first sentence (POPE's rule), there whole"
      if free
      else None,
    )


def mme_totals(theirs: Theirs, rng: random.Random) -> Iterator[Case]:
  utils = theirs.load("tasks.mme.utils")
  categories = [name for part in totals.MME_PARTS.values() for name in part]
  said = ("Yes", "No.", "y", "n", "x", "yes, it", "I no", "no way", "not", "", "Maybe")
  while True:
    marked, results = [], collections.defaultdict(list)
    for category in rng.sample(categories, 4):
      for image in range(3):
        for answer in ("Yes", "No"):
          prediction = rng.choice(said) if rng.random() < 0.4 else answer
          group = f"{category}/{image}"
          question = Question(
            group + answer,
            "t",
            "x",
            "?",
            (answer.lower(),),
            "mme",
            None,
            category,
            group,
          )
          score = metrics.mark("mme", prediction, (answer,))
          marked.append(Marked(question, prediction, score))
          doc = {"question_id": group, "answer": answer, "category": category}
          for key, value in utils.mme_process_results(doc, [prediction]).items():
            results[key].append(value)
    found = totals.make_totals(marked)
    names = ("perception", "cognition")
    got = [utils.mme_aggregate_results(results[f"mme_{name}_score"]) for name in names]
    yield Case(
      tuple(round(found[name], 9) for name in names),
      tuple(round(value, 9) for value in got),
      [(item.prediction, item.question.id) for item in marked],
    )


COMPARED: dict[str, Callable[[Theirs, random.Random], Iterator[Case]]] = {
  "vqa (VQAv2)": vqa_cases,
  "textvqa (TextVQA)": textvqa_cases("textvqa"),
  "textvqa (VizWiz)": textvqa_cases("vizwiz_vqa"),
  "gqa": match_cases("gqa", ignore_case=True, ignore_punctuation=True),
  "exact_match": match_cases("exact_match", ignore_case=True),
  "chartqa": chartqa_cases,
  "anls (DocVQA)": anls_cases,
  "multiple_choice (ScienceQA)": scienceqa_cases,
  "ai2d": ai2d_cases,
  "mmbench": mmbench_cases,
  "mmbench, circular over 8 questions": mmbench_totals,
  "yes_no (POPE), totals": pope_totals,
  "mme, totals": mme_totals,
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--lmms_eval", help="a checkout; none takes what is installed")
  parser.add_argument("--cases", type=int, default=5000, help="a metric")
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  theirs = Theirs(arguments.lmms_eval)
  print(
    f"{theirs.version}, {arguments.cases:,} cases a metric, seed {arguments.seed}\n"
  )
  print("| metric | equal | right or above 0 | differ on purpose | differ |")
  print("|---|---|---|---|---|")
  importlib.import_module("loguru").logger.disable("lmms_eval")
  failures, reasons = [], collections.Counter()
  for name, cases in COMPARED.items():
    count = arguments.cases if "," not in name else max(1, arguments.cases // 20)
    counts = collections.Counter()
    stream = cases(theirs, random.Random(f"{arguments.seed} {name}"))
    for _ in range(count):
      case = next(stream)
      counts["above"] += bool(case.ours) and case.ours != (0, 0)
      if case.ours == case.theirs or _near(case.ours, case.theirs):
        counts["equal"] += 1
      elif case.reason:
        counts["purpose"] += 1
        reasons[f"{name}: {case.reason}"] += 1
      else:
        counts["differ"] += 1
        failures.append((name, case))
    print(
      f"| {name} | {counts['equal']:,} of {count:,} | {counts['above']:,} |"
      f" {counts['purpose']:,} | {counts['differ']:,} |",
      flush=True,
    )
  print("\nOn purpose:")
  for reason, count in reasons.items():
    print(f"- {reason} ({count:,})")
  print("- POPE's yes ratio is of the predictions, as POPE's is; there of the answers")
  for name, case in failures[:20]:
    print(f"DIFFERS {name}: ours {case.ours}, theirs {case.theirs}: {case.shown!r}")
  sys.exit(bool(failures))


def _near(ours: Any, theirs: Any) -> bool:
  both = isinstance(ours, float) and isinstance(theirs, int | float)
  return both and abs(ours - theirs) < 1e-12


if __name__ == "__main__":
  main()
