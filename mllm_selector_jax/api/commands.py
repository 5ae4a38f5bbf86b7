"""The commands as functions, for notebooks and scripts."""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm_selector_jax.types import InputError


def load_config(
  name: str | os.PathLike = "default", settings: Mapping[str, Any] | None = None
) -> Any:
  """Loads a config that the package ships, or one from a file with `get_config()`.

  Args:
    name: "default", "demo" or the name of another file in `configs/`, or a path.
    settings: values by key, as on the command line: `{"tune.batch": 8}`.

  Returns:
    A locked `ml_collections.ConfigDict`.

  Raises:
    InputError: there is no such config or key, or a value has the wrong type.
  """
  import importlib.util

  from mllm_selector_jax import configs

  path = Path(name)
  if not path.is_file():
    path = Path(next(iter(configs.__path__))) / f"{path.name.removesuffix('.py')}.py"
  if not path.is_file():
    shipped = sorted(p.stem for p in path.parent.glob("*.py") if p.stem != "__init__")
    raise InputError(
      f"There is no config {str(name)!r}; shipped are {', '.join(shipped)}, and a path"
      " names a file of your own."
    )
  spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return _change(module.get_config(), settings)


def run(
  config: Any,
  workdir: str | os.PathLike,
  command: str = "run",
  settings: Mapping[str, Any] | None = None,
  **flags: Any,
) -> Path:
  """Runs a command in a workdir, as `mllm-selector COMMAND` does.

  Artifacts that are in the workdir are kept if nothing that they depend on has changed.

  Args:
    config: a config from `load_config`, or a name that it takes.
    workdir: the folder that everything is written to; it is made if it is missing.
    command: one of `stages.COMMANDS`: "run", "check", "score", "select", "tune", ...
    settings: values by key that replace those of the config.
    **flags: flags of the command line: `force`, and those of single commands (`arm`
      of "tune", "evaluate", "explain", "export-selection" and "clean", `ids` of
      "explain", `lists` and `out` of "measure").

  Returns:
    The workdir, whose files docs/outputs.md describes.

  Raises:
    InputError: a setting, the pool or the model is wrong.
    RunError: the run could not continue.
  """
  from mllm_selector_jax.runs.context import open_run
  from mllm_selector_jax.settings import check_settings
  from mllm_selector_jax.stages import COMMANDS

  if command not in COMMANDS:
    raise InputError(f"{command!r} is not a command; there are {', '.join(COMMANDS)}.")
  if isinstance(config, str | os.PathLike):
    config = load_config(config)
  with open_run(_change(config, settings), os.fspath(workdir), **flags) as current:
    check_settings(current, command)
    COMMANDS[command](current)
  return Path(workdir)


def check(
  data: Any,
  images: Any = None,
  *,
  model: str = "demo",
  workdir: str | os.PathLike,
  settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Checks a pool: reads every row, and finds the rows that cannot be used.

  Args:
    data: the file, files or folder of the pool.
    images: the folder or folders of its images.
    model: the base model whose tokenizer and image processor are used: a directory, a
      hub name, or "demo".
    workdir: the folder that `pool.parquet`, with one line for each row, is written to.
    settings: other values by key, such as `{"model.conversation": "chatml"}`.

  Returns:
    The summary: "rows", "ok", the number of rows set aside for each reason, and counts
    by source.

  Raises:
    InputError: the pool or the model cannot be read.
  """
  values = {
    "pool.data": _as_setting(data),
    "pool.images": _as_setting(images),
    "model.path": model,
    **(settings or {}),
  }
  place = run("default", workdir, "check", values)
  return json.loads((place / "pool_summary.json").read_text())


def score(
  config: Any,
  workdir: str | os.PathLike,
  settings: Mapping[str, Any] | None = None,
) -> Any:
  """Scores every usable row of the config's pool.

  If this has not been done yet, the pool is checked and the seed model is trained.
  `{"score.model": DIR}` scores with a model of your own instead.

  Args:
    config, workdir, settings: as for `run`.

  Returns:
    The score table as a pyarrow.Table, with one line for each scored row: "row", "id",
    "hash", and each of `score.signals`. Embeddings are in `scores/embeddings/`.

  Raises:
    InputError: a setting, the pool or the model is wrong.
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  if isinstance(config, str | os.PathLike):
    config = load_config(config)
  config = _change(config, settings)
  scored = config.score.model is not None or config.score.table is not None
  for command in ("check", "score") if scored else ("check", "seed", "score"):
    place = run(config, workdir, command)
  parts = sorted((place / "scores").glob("part-*.parquet"))
  return pa.concat_tables([pq.read_table(path) for path in parts])


def _change(config: Any, settings: Mapping[str, Any] | None) -> Any:
  """Returns a locked copy of a config with changed values."""
  config = copy.deepcopy(config)
  try:
    config.update_from_flattened_dict(dict(settings or {}))
  except (AttributeError, KeyError, TypeError) as error:
    raise InputError(f"settings: {error}") from error
  config.lock()
  return config


def _as_setting(value: Any) -> Any:
  if isinstance(value, list | tuple):
    return tuple(os.fspath(path) for path in value)
  return None if value is None else os.fspath(value)
