"""Fine-tuning the base on a list of pool rows: what seed, align and tune share."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import sharding
from mllm_selector_jax.data.packing import assembly, batch_shapes, loader, row_packing
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.inputs import base_model, guard
from mllm_selector_jax.models import huggingface, lora, mllm
from mllm_selector_jax.pipeline import telemetry
from mllm_selector_jax.pipeline.tuning_recipe import (
  check_section,
  make_adapter,
  recipe_config,
)
from mllm_selector_jax.runs import artifacts, interrupts, peers, row_shares
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import budget
from mllm_selector_jax.training import loop
from mllm_selector_jax.training.optimizer_options import OptimizerOptions
from mllm_selector_jax.types import Tiling

_ROWS = 8  # named in an error


def fine_tune(
  run: Run,
  section: Any,
  rows: np.ndarray,
  folder: Path,
  title: str,
  steps_wanted: int | None = None,
) -> None:
  """Tunes the base on the rows; leaves rows, metrics and the model in `folder`.

  Args:
    run: the invocation.
    section: cfg.align, cfg.seed or cfg.tune.
    rows: of the checked pool, ascending.
    folder: to write into; an interrupted tune goes on from what is there.
    title: of the progress.
    steps_wanted: how many, whatever the epochs; None is `section.epochs`.
  """
  check_section(section, title)
  pool = base_model.open_pool(run)
  reader = base_model.open_reader(run, pool)
  source = base_model.base_path(run)
  config, params = base_model.read_model(run, source)
  if adapter := make_adapter(section):
    config, params = mllm.add_adapter(config, params, adapter, run.cfg.rng_seed)
  laid = lay_out(
    section,
    pool,
    rows,
    run.cfg.rng_seed,
    config.tiling,
    sharding.row_ways(run.mesh),
    steps_wanted,
  )
  steps = laid.steps
  if idle := find_idle(laid):
    run.say(
      f"{title}: {idle} of the {laid.largest.shards} parts that the mesh and accumulate"
      " cut a step into have nothing but padding in every step:"
      f" {section.batch} samples are at most as many packed rows. Give a larger batch"
      " or fewer devices."
    )
  share, shares = row_shares.row_share(run.mesh)
  shapes = tuple(shape.share(shares) for shape in laid.shapes)
  own = [slice(share * one.rows, (share + 1) * one.rows) for one in shapes]
  batches = loader.read_batches(
    [
      (which, loader.as_trees(step[own[which]]))
      for which, step in zip(laid.which.tolist(), steps, strict=True)
    ],
    loader.MakeStep(reader, shapes),
    section.threads,
  )
  samples = sum(len(items) for step in steps for items in step)

  def name_rows(wanted: np.ndarray) -> str:
    named = ", ".join(f"row {row} (id {pool.id[row]})" for row in wanted[:_ROWS])
    more = len(wanted) - _ROWS
    return f"{named} and {more} more" if more > 0 else named

  with (
    telemetry.watch(run, title, len(steps)) as observe,
    run.progress(title, "sample", leave=False) as progress,
  ):
    params, metrics = loop.train(
      config,
      params,
      batches,
      len(steps),
      make_options(section),
      run.mesh,
      folder=run.checkpoints(folder),
      progress=lambda done, total: progress(samples * done // total, samples),
      stopped=run.stopped,
      name_rows=name_rows,
      warn=lambda text: run.say(f"{title}: {text}"),
      observe=observe,
    )
  # Up to here checkpoints keep the work; from here on the model does.
  with interrupts.held("the tuned model is written"):
    if peers.is_first_process():
      _write_rows(folder / "rows.parquet", pool, rows)
      artifacts.write_text(folder / "metrics.jsonl", loop.format_metrics(metrics))
    if config.lora is not None:
      huggingface.write_adapter(folder / "adapter", config, params, run.cfg.model.path)
      config, params = lora.merge(config, params)
    chat_template, exact = template_source.make_chat_template(reader.encoder)
    huggingface.write_model(
      folder / "hf",
      config,
      params,
      source,
      images=reader.encoder.images.limited,
      chat_template=chat_template,
      ends=reader.encoder.answers.ends,
    )
  if not reader.encoder.answers.stops:
    run.say(
      f"{title}: no single token ends the answers of"
      f" model.conversation={run.cfg.model.conversation!r}, so that the"
      f" generation_config.json of {folder / 'hf'} cannot name one. Whoever asks the"
      " model elsewhere gives the text that ends an answer as stop_strings."
    )
  if not exact:
    run.say(
      f"{title}: the chat template of {folder / 'hf'} writes other tokens than the rows"
      f" of model.conversation={run.cfg.model.conversation!r} had; with this tokenizer"
      " it cannot be said in a chat template. Ask the model as `evaluate` does."
    )
  run.say(
    f"{title}: {len(rows):,} rows x {samples / len(rows):.4g} epochs,"
    f" {len(steps):,} steps, loss {metrics[0]['loss']:.3f} -> {metrics[-1]['loss']:.3f}"
  )


def lay_out(
  section: Any,
  pool: Any,
  rows: np.ndarray,
  seed: int,
  tiling: Tiling,
  ways: int,
  steps_wanted: int | None = None,
) -> batch_shapes.Laid:
  """The packed pool rows of every step, and the shapes of their batches.

  Args:
    section: the recipe.
    pool: the checked pool, of which the columns of counts are read.
    rows: of the pool.
    seed: of the order.
    tiling: of the model.
    ways: over how many devices' worth of rows a batch is spread.
    steps_wanted: how many, whatever the epochs; None is `section.epochs`.
  """
  lengths = pool.tokens[rows]
  row_length = row_packing.row_length_for(lengths, section.row_length)
  epochs = section.epochs
  if steps_wanted is not None:
    epochs = -(-steps_wanted // -(-len(rows) // section.batch))
  steps = row_packing.training_steps(
    len(rows),
    lengths,
    section.batch,
    epochs,
    seed,
    row_length,
    pool.has_image[rows] if section.group_by_modality_length else None,
  )[:steps_wanted]
  steps = [[[int(rows[i]) for i in items] for items in step] for step in steps]
  return batch_shapes.lay_out(
    steps,
    assembly.Counts.of_pool(pool),
    pool.tokens,
    row_length,
    tiling,
    ways * section.accumulate,
  )


def find_idle(laid: batch_shapes.Laid) -> int:
  """Shards of a batch that no step reaches, since it has fewer packed rows."""
  most_rows = max(sum(map(bool, step)) for step in laid.steps)
  return max(0, laid.largest.shards - most_rows)


def tune_share(run: Run, stage: str, artifact: artifacts.Artifact) -> None:
  """Tunes the base on `<stage>.rows` of the pool, drawn at random."""
  cfg = run.cfg[stage]
  run.workdir.pool.digest()  # says what to run where there is none
  guard.refuse_aside(run)
  recipe = run.recipe(
    stage,
    {**recipe_config(cfg), "model": base_model.model_config(run)},
    {
      "pool": run.workdir.pool.digest(),
      "base": base_model.hash_model(base_model.base_path(run)),
    },
  )

  def build(folder):
    pool = base_model.open_pool(run)
    costs = {budget.TOKENS: pool.tokens}
    count = budget.resolve_count(cfg.rows, pool.ok, costs, name=f"{stage}.rows")
    rows = base_model.draw_rows(pool, count, run.cfg.rng_seed)
    fine_tune(run, cfg, rows, folder, stage)

  run.make(artifact, recipe, build, together=True)


def make_options(section: Any) -> loop.LoopOptions:
  fields = {field.name for field in dataclasses.fields(OptimizerOptions)}
  recipe = {name: section[name] for name in fields}
  return loop.LoopOptions(
    OptimizerOptions(**recipe),
    section.trainable,
    section.save_every,
    section.keep,
    section.keep_best,
    section.accumulate,
    section.spike,
  )


def _write_rows(path: Path, pool, rows: np.ndarray) -> None:
  import pyarrow as pa

  table = pa.table(
    {"row": rows, "id": pa.array([pool.id[r] for r in rows], pa.string())}
  )
  artifacts.write_table(path, table)
