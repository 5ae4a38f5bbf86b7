"""Makes the checked pool: what each row is, and which rows cannot be used."""

import json

from mllm_selector_jax import listing, plugins
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import fingerprint
from mllm_selector_jax.data.pool import pool_check, summary_text
from mllm_selector_jax.data.tokens import chat_date, template_likeness
from mllm_selector_jax.inputs import base_model, guard
from mllm_selector_jax.inputs.drawn_demo import draw, is_drawn
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.types import InputError

# Of cfg.model, what tokens and pixels follow from beside the base's own files.
_PROCESSING = (
  *("conversation", "system", "row_system", "content_specials", "max_length"),
  *("chat_date", "pad_images"),
)


def make_pool(run: Run, look: bool = False) -> None:
  """Makes what `check` makes, as the start of a longer command.

  Args:
    run: the invocation.
    look: whether nothing is made of the pool by this command, so that it may have any
      number of rows set aside.

  Raises:
    InputError: no row can be used, or too many are lost, see `guard`.
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
      "files": fingerprint.fingerprint(files, folders, splits),
      "processing": base_model.hash_processing(run),
      **formats.LOOKUP.identify(*plugins.list_given(formats.SETTING)),
    },
  )
  _refuse_changed_bytes(run, recipe)
  before = guard.read_before(run, drawn)

  def build(place):
    path = place / guard.SUMMARY
    # A check that was refused below is whole, and need not be done again.
    if run.force or not path.exists():
      artifacts.write_json(path, read(place))
    if before is not None:
      found = json.loads(path.read_text())
      try:
        guard.refuse_replacing(run, found, before, look)
      except InputError:
        run.say(summary_text.format_summary(found))
        raise

  def read(place):
    encoder = base_model.read_encoder(run)
    own = encoder.tokenizer.chat_template
    if run.cfg.model.conversation == "chat" and chat_date.asks_date(str(own)):
      run.say(
        "check: the base's chat template writes the date of its rendering; in this run"
        f" and in its models that is {run.cfg.model.chat_date} (model.chat_date)."
      )
    with run.progress("check", "row") as progress:
      found = pool_check.check_pool(
        files,
        folders,
        encoder,
        run.cfg.pool.max_pixels,
        place / "pool.parquet",
        progress=progress,
        duplicate_ids=run.cfg.pool.duplicate_ids,
        duplicate_rows=run.cfg.pool.duplicate_rows,
        source=run.cfg.pool.source,
        seed=run.cfg.rng_seed,
        splits=splits,
        long_rows=run.cfg.pool.long_rows,
        resume=True,
        max_images=run.cfg.pool.max_images,
      )
    remarks = huggingface.list_remarks(base_model.base_path(run))
    chosen = run.cfg.model.conversation
    if other := template_likeness.describe_other(chosen, encoder.tokenizer):
      remarks.append(other)
    if remarks:
      found["base"] = remarks
    return found

  run.make(run.workdir.pool, recipe, build, again="--force" if run.force else "")
  found = guard.read_summary(run)
  run.say(summary_text.format_summary(found))
  for remark in found.get("base", ()):
    run.say(f"check: the base: {remark}")
  if not look:
    guard.refuse_aside(run)


def _refuse_changed_bytes(run: Run, recipe: artifacts.Recipe) -> None:
  """Results of other bytes under the same names are not mixed unless forced."""
  made = run.workdir.pool.provenance()
  if made is None or run.force or run.workdir.seed.provenance() is None:
    return
  same = made["config"] == recipe.to_json()["config"]
  if same and made["inputs"]["files"] != recipe.inputs["files"]:
    raise InputError(
      "The pool's files changed since they were checked, and there are results of"
      f" the old ones in {run.workdir.path}. Put the old files back, give another"
      " --workdir, or add --force to redo every stage with the new ones."
    )
