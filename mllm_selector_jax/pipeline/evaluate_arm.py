"""Evaluates the tuned model of an arm on the evaluation questions."""

import json

from mllm_selector_jax import plugins, sharding
from mllm_selector_jax.evaluation import metrics
from mllm_selector_jax.evaluation.asking import evaluate_model
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.questions import (
  hash_questions,
  image_folders,
  read_questions,
  task_names,
)
from mllm_selector_jax.pipeline import trackers
from mllm_selector_jax.pipeline.kept_evaluations import set_aside
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError


def check_tasks(run: Run) -> None:
  """Raise an InputError if the config names no evaluation questions."""
  if not task_names(run):
    raise InputError(
      "evaluate.tasks names no file. Give --config.evaluate.tasks=FILE, where FILE"
      " holds questions as JSONL or as LLaVA conversations. For the published files of"
      " a benchmark, put its name first, as in gqa:testdev_balanced_questions.json."
    )


def evaluate_arm(run: Run, arm: str) -> None:
  """Make the artifact with an arm's `results.json` and `predictions.jsonl`."""
  cfg = run.cfg.evaluate
  config = {
    **{name: cfg[name] for name in ("rules", "limit", "max_new_tokens")},
    **{name: run.cfg.pool[name] for name in ("max_pixels", "max_images")},
    "model": base_model.model_config(run),
  }
  tuned = run.workdir.tuned(arm).digest()
  inputs = hash_questions(run) | {"tuned": tuned}
  inputs |= metrics.LOOKUP.identify(*plugins.list_given("evaluate.metrics"))
  recipe = run.recipe("evaluate", config, inputs)

  def build(folder):
    questions, faulty = read_questions(run)
    encoder = base_model.read_encoder(run)
    config, params = base_model.read_model(run, run.workdir.tuned(arm).path / "hf")
    with run.progress(f"evaluate {arm}", "question") as progress:
      with sharding.use(run.mesh):
        results, predictions = evaluate_model(
          config,
          params,
          encoder,
          image_folders(run),
          questions,
          cfg.batch,
          cfg.max_new_tokens,
          run.mesh,
          progress,
          faulty,
          run.cfg.pool.max_pixels,
          run.cfg.pool.max_images,
        )
    if peers.is_first_process():
      artifacts.write_json(folder / "results.json", results)
      lines = "".join(json.dumps(line) + "\n" for line in predictions)
      artifacts.write_text(folder / "predictions.jsonl", lines)
    with trackers.track(run, f"evaluate {arm}") as log:
      log(_list_figures(results), 1)
    macro = results["macro"]
    run.say(
      f"evaluate {arm}: macro accuracy {macro['value']:.3f}"
      f" [{macro['low']:.3f}, {macro['high']:.3f}] over {len(results['tasks'])} tasks,"
      f" {len(predictions):,} questions; {results['aside']['count']} set aside"
    )
    for line in _describe_unasked(results["aside"]):
      run.say(line)

  set_aside(run, run.workdir.evaluation(arm), recipe)
  run.make(run.workdir.evaluation(arm), recipe, build, together=True)


def _list_figures(results: dict) -> dict[str, float | None]:
  """Return the figures of an evaluation under the names that trackers show."""
  totals = {"macro": results["macro"]}
  totals |= {f"task/{name}": total for name, total in results["tasks"].items()}
  return {
    f"{name}/{kind}": total[kind]
    for name, total in totals.items()
    for kind in ("value", "low", "high")
  }


def _describe_unasked(unasked: dict) -> list[str]:
  """Return one line for each reason: its count, and the first question's detail."""
  lines = []
  for reason, count in unasked["reasons"].items():
    first = next(
      question for question in unasked["questions"] if question["reason"] == reason
    )
    lines.append(f"  set aside, {reason}: {count:,}; the first: {first['detail']}")
  return lines
