"""Checks the pool: reads every row, and says which rows cannot be used."""

import json

from mllm_selector_jax import listing, plugins
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import fingerprint
from mllm_selector_jax.data.pool import pool_check, summary_text
from mllm_selector_jax.data.tokens import chat_date, template_likeness
from mllm_selector_jax.data.tokens.conversation import choose_template
from mllm_selector_jax.inputs import base_model, guard
from mllm_selector_jax.inputs.drawn_demo import draw, is_drawn
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.types import InputError

# The settings of cfg.model that tokens and pixels depend on, beside the base's files.
_PROCESSING = (
  *("conversation", "system", "row_system", "content_specials", "box_form"),
  *("max_length", "chat_date", "pad_images", "max_tiles", "resize_pixels"),
)


def make_pool(run: Run, look: bool = False) -> None:
  """Check the pool and write `pool.parquet`, for `check` and for longer commands.

  Args:
    run: The invocation.
    look: Whether the command only looks at the pool and makes nothing else. If so,
      any number of rows may be set aside.

  Raises:
    InputError: No row can be used, or too many rows are lost (`inputs/guard.py`).
  """
  drawn = plain(run.cfg.pool.demo) if is_drawn(run.cfg) else None
  if drawn:
    draw(run)
  elif run.cfg.pool.demo.rows:
    run.say(
      "check: pool.data is given, so the demo pool of"
      f" pool.demo.rows={run.cfg.pool.demo.rows} is not drawn.",
      once=True,
    )
  files, folders = base_model.pool_files(run), base_model.image_folders(run)
  splits = ",".join(listing.split_names(run.cfg.pool.splits))
  config = {
    "data": files,
    "images": folders.folders,
    "links": run.cfg.pool.links,
    "max_pixels": run.cfg.pool.max_pixels,
    "max_images": run.cfg.pool.max_images,
    "video_frames": run.cfg.pool.video_frames,
    "duplicate_ids": run.cfg.pool.duplicate_ids,
    "duplicate_rows": run.cfg.pool.duplicate_rows,
    "source": run.cfg.pool.source,
    "splits": splits,
    "long_rows": run.cfg.pool.long_rows,
    "demo": drawn,
    **{key: run.cfg.model[key] for key in _PROCESSING},
  }
  recipe = run.recipe(
    "check",
    config,
    {
      "files": fingerprint.fingerprint(files, folders, splits, run.progress),
      "processing": base_model.hash_processing(run),
      **formats.LOOKUP.identify(*plugins.list_given(formats.SETTING)),
    },
  )
  _refuse_changed_bytes(run, recipe)
  before = guard.read_before(run, drawn)

  def build(folder):
    path = folder / guard.SUMMARY
    # A check that was refused below is complete and need not be repeated.
    if run.force or not path.exists():
      artifacts.write_json(path, read(folder))
    if before is not None:
      summary = json.loads(path.read_text())
      try:
        guard.refuse_replacing(run, summary, before, look)
      except InputError:
        run.say(summary_text.format_summary(summary))
        raise

  def read(folder):
    encoder = base_model.read_encoder(run)
    template = encoder.tokenizer.chat_template
    chosen = run.cfg.model.conversation
    name = choose_template(chosen, encoder.tokenizer)
    if name != chosen:
      run.say(f"check: model.conversation={chosen} means {name} for this base.")
    if name == "chat" and chat_date.asks_date(str(template)):
      run.say(
        "check: the base's chat template writes today's date. This run and its models"
        f" use the date {run.cfg.model.chat_date} (model.chat_date) instead."
      )
    with run.progress("check", "row") as progress:
      summary = pool_check.check_pool(
        files,
        folders,
        encoder,
        run.cfg.pool.max_pixels,
        folder / "pool.parquet",
        progress=progress,
        duplicate_ids=run.cfg.pool.duplicate_ids,
        duplicate_rows=run.cfg.pool.duplicate_rows,
        source=run.cfg.pool.source,
        seed=run.cfg.rng_seed,
        splits=splits,
        long_rows=run.cfg.pool.long_rows,
        resume=True,
        max_images=run.cfg.pool.max_images,
        video_frames=run.cfg.pool.video_frames,
      )
    remarks = huggingface.list_remarks(base_model.base_path(run))
    if remark := template_likeness.describe_other(name, encoder.tokenizer):
      remarks.append(remark)
    if remarks:
      summary["base"] = remarks
    return summary

  run.make(run.workdir.pool, recipe, build, again="--force" if run.force else "")
  summary = guard.read_summary(run)
  run.say(summary_text.format_summary(summary))
  for remark in summary.get("base", ()):
    run.say(f"check: the base: {remark}")
  if not look:
    guard.refuse_aside(run)


def _refuse_changed_bytes(run: Run, recipe: artifacts.Recipe) -> None:
  """Raise an InputError if the pool's files changed after a model was trained on them.

  With `--force` the new files are taken, and all stages are run again.
  """
  provenance = run.workdir.pool.provenance()
  if provenance is None or run.force or run.workdir.seed.provenance() is None:
    return
  same_config = provenance["config"] == recipe.to_json()["config"]
  if same_config and provenance["inputs"]["files"] != recipe.inputs["files"]:
    raise InputError(
      "The pool's files changed since they were checked, and there are results of"
      f" the old ones in {run.workdir.path}. Put the old files back, give another"
      " --workdir, or add --force to redo every stage with the new ones."
    )
