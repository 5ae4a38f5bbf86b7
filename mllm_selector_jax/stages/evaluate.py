"""evaluate: asks each arm's tuned model the questions of the evaluation set."""

import json

from mllm_selector_jax import artifacts, sharding
from mllm_selector_jax.data import storage
from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.evaluation.evaluate import evaluate_model
from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.select import arms
from mllm_selector_jax.types import InputError


def evaluate(run: Run) -> None:
  """Makes `arms/<name>/evaluation/` for every arm of the config."""
  check_settings(run)
  for arm in arms(run):
    evaluate_arm(run, arm)


def check_settings(run: Run) -> None:
  """Refuses a config by which no question could be asked."""
  if not question_files(run):
    raise InputError(
      "evaluate.tasks names no file. Give --config.evaluate.tasks=FILE, questions"
      " as JSONL or as LLaVA conversations."
    )
  for name in ("batch", "max_new_tokens"):
    if run.cfg.evaluate[name] < 1:
      value = run.cfg.evaluate[name]
      raise InputError(f"evaluate.{name}={value}; it must be 1 or more.")


def evaluate_arm(run: Run, arm: str) -> None:
  """Makes one arm's results.json and predictions.jsonl."""
  cfg = run.cfg.evaluate
  config = {
    **{name: cfg[name] for name in ("rules", "limit", "max_new_tokens")},
    "model": base.model_config(run),
  }
  tuned = run.workdir.tuned(arm).digest()
  files = question_files(run)
  missing = [name for name in files if not storage.is_file(name)]
  if missing:
    raise InputError(f"{missing[0]}: the evaluation file is not there.")
  inputs = {
    f"questions {place}": storage.hash_file(name) for place, name in enumerate(files)
  }
  inputs["tuned"] = tuned
  recipe = run.recipe("evaluate", config, inputs)

  def build(folder):
    questions, aside = tasks.read_questions(
      files, cfg.rules, cfg.limit or None, run.cfg.rng_seed
    )
    encoder, options = base.read_encoder(run)
    config, params = base.read_model(run, run.workdir.tuned(arm).path / "hf")
    with run.progress(f"evaluate {arm}", "question") as progress:
      with sharding.use(run.mesh):
        results, predictions = evaluate_model(
          config,
          params,
          encoder,
          image_folder(run),
          options,
          questions,
          cfg.batch,
          cfg.max_new_tokens,
          run.mesh,
          progress,
          aside,
          run.cfg.pool.max_pixels,
        )
    if sharding.is_first_process():
      artifacts.write_json(folder / "results.json", results)
      lines = "".join(json.dumps(line) + "\n" for line in predictions)
      artifacts.write_text(folder / "predictions.jsonl", lines)
    macro = results["macro"]
    run.say(
      f"evaluate {arm}: macro accuracy {macro['value']:.3f}"
      f" [{macro['low']:.3f}, {macro['high']:.3f}] over {len(results['tasks'])} tasks,"
      f" {len(predictions):,} questions; {results['aside']['count']} set aside"
    )

  run.make(run.workdir.evaluation(arm), recipe, build, together=True)


def question_files(run: Run) -> list[str]:
  """The evaluation files; those of the drawn pool where the config draws one."""
  given = base.split_files(run.cfg.evaluate.tasks)
  if not given and run.cfg.pool.demo.rows:
    return [str(run.workdir.demo.path / "evaluation" / "eval.jsonl")]
  return given


def image_folder(run: Run) -> str | None:
  if not run.cfg.evaluate.tasks and run.cfg.pool.demo.rows:
    return str(run.workdir.demo.path / "evaluation" / "images")
  return run.cfg.evaluate.images or base.image_folder(run)
