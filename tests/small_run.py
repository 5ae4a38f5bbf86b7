"""A whole run on a small drawn pool with a tiny random base, made on the spot."""

import contextlib

import jax
import numpy as np
from mllm_selector_jax.configs import demo

from mllm_selector_jax.runs import context


def make_config(base, **overrides):
  """The demo's config for a tiny base; overrides by dotted keys."""
  cfg = demo.get_config()
  values = {
    "model.path": str(base),
    "pool.demo.rows": 120,
    "pool.demo.questions": 2,
    "seed.rows": "30",
    "seed.epochs": 1,
    "tune.epochs": 1,
    "score.part_rows": 32,
    "score.batch_rows": 8,
    "select.budget": "25%",
    "evaluate.max_new_tokens": 3,
    **overrides,
  }
  for key, value in values.items():
    *parents, name = key.split(".")
    section = cfg
    for parent in parents:
      section = section[parent]
    section[name] = value
  return cfg


@contextlib.contextmanager
def open_run(folder, base, force=False, devices=1, **overrides):
  """A run in `folder`, on the first of the fake devices or on more of them."""
  cfg = make_config(base, **overrides)
  first = jax.devices()[:devices]
  with context.open_run(cfg, str(folder), force, devices=first) as current:
    yield current


def read_bytes(folder, skip=("log.txt", ".lock", "checkpoints", "logs")):
  """Contents of every file below a folder by relative name."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not set(path.relative_to(folder).parts) & set(skip)
  }


def read_embeddings(scores):
  """The embeddings of all rows of a score table."""
  return scores.read_embeddings(np.arange(len(scores.row)))
