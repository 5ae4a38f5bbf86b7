"""Generated sets of marked questions, and both sides' totals of them."""

import collections
import contextlib
import io
import random
from collections.abc import Iterator

from benchmarks.lmms_eval_cases import Case, Theirs, draw_letter
from mllm_selector_jax.evaluation import metrics, totals
from mllm_selector_jax.evaluation.question import Question
from mllm_selector_jax.evaluation.totals import Marked


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
          id, "t", (), "?", (answer,), "mmbench", choices, "c", str(index)
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
      question = Question(number, "t", (), "?", (answer,), "yes_no")
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
            (),
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
