"""The pool that a plan is made for: a checked one, or one known by a few figures."""

import json
from typing import Any, NamedTuple

from mllm_selector_jax import storage
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.guard import SUMMARY
from mllm_selector_jax.planning import described_pool
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError

# Of a record, where there is none: text at 4 bytes a token, and all else.
TOKEN_BYTES, RECORD_BYTES = 4, 200
IMAGE_BYTES = 150_000  # the mean of COCO's photographs: 18 GB of 118,287


class PoolFigures(NamedTuple):
  """A pool as estimates see it.

  Attributes:
    table: the columns of a checked pool, or those of a `DescribedPool`.
    text: what it is, for people.
    record_bytes: of all records in their files.
    image_bytes: of all images.
    assumed: whether these are assumptions.
  """

  table: Any
  text: str
  record_bytes: float
  image_bytes: float
  assumed: bool


def find_pool(run: Run) -> PoolFigures:
  """Return the pool of `plan.rows`, of `plan.summary`, or the checked one.

  Raises:
    InputError: There is none of them, or a figure cannot be.
  """
  cfg = run.cfg.plan
  described_pool.check_figures(cfg)
  if cfg.rows is None and cfg.summary is None:
    if run.workdir.pool.provenance() is None:
      raise InputError(
        f"No pool has been checked in {run.workdir.path}. Describe one by"
        " --config.plan.rows=N (with plan.tokens and plan.images, means of a row), give"
        " the summary of one that was checked elsewhere,"
        f" --config.plan.summary={SUMMARY}, or run `mllm-selector check`."
      )
    return _open_checked(run)
  size = described_pool.read_size(cfg.image_size)
  layout = base_model.read_encoder(run).images.lay_out(*size)
  if cfg.summary is not None:
    summary = _read_json(cfg.summary)
    pool = described_pool.describe_summary(
      summary, layout, cfg.summary, run.cfg.rng_seed
    )
    text = f"of {cfg.summary}"
    image_bytes = float(summary["images"]["bytes"])
  else:
    pool = described_pool.describe_rows(
      cfg.rows, cfg.tokens, cfg.images, layout, run.cfg.model.max_length
    )
    assumed = "" if cfg.tokens is not None else ", its text assumed"
    tiles = f"{layout.tiles:,} tile{'' if layout.tiles == 1 else 's'}"
    text = (
      f"as plan.rows describes it{assumed}; an image of {cfg.image_size} has"
      f" {len(layout.tokens):,} tokens and {tiles}, and no two rows share one"
    )
    image_bytes = IMAGE_BYTES * float(pool.images.counts.sum())
  texts = float(pool.tokens.sum() - pool.image_tokens.sum())
  records = TOKEN_BYTES * texts + RECORD_BYTES * len(pool)
  return PoolFigures(pool, _describe(pool, text), records, image_bytes, True)


def _open_checked(run: Run) -> PoolFigures:
  pool = base_model.open_pool(run)
  summary = _read_json(run.workdir.path / SUMMARY)
  return PoolFigures(
    pool,
    _describe(pool, "as checked"),
    float(pool.length[pool.ok].sum()),
    float(summary["images"]["bytes"]),
    False,
  )


def _describe(pool: Any, text: str) -> str:
  tokens, images = pool.tokens[pool.ok], pool.images.counts[pool.ok]
  return (
    f"The pool: {len(tokens):,} rows, {tokens.mean():,.0f} tokens and"
    f" {images.mean():.2g} images a row in the mean ({text})."
  )


def _read_json(path: Any) -> Any:
  try:
    with storage.open_binary(path) as file:
      return json.load(file)
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(
      f"{path} cannot be read as JSON ({error}); give the pool_summary.json that"
      " `check` wrote."
    ) from error
