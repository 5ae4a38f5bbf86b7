"""Publishes a selection as a folder with a card, and makes it again from there.

The folder is laid out as a workdir and holds everything that the selection was made
from: the table of the checked pool (without records and images), the scores, and the
held-out loss if the bound reads one. The embeddings are most of the bytes; they are
left out if the selection reads only the clusters that were computed from them.
`verify` reads nothing but this folder.
"""

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import storage
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pipeline import candidates, needs
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.artifacts import Artifact
from mllm_selector_jax.runs.bucket import RECIPE
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.types import InputError

CARD, KEPT, README = "card.json", "selection.parquet", "README.md"
TABLE, SUMMARY = "pool.parquet", "pool_summary.json"


def write_card(run: Run, arm: str, provenance: dict[str, Any], folder: Path) -> None:
  """Write the card of an arm's selection, and everything the selection depends on.

  Args:
    run: A run at the pool and the scores of the selection.
    arm: Name of the arm.
    provenance: The selection's provenance.
    folder: The folder to write into.
  """
  selection, workdir = run.workdir.selection(arm), run.workdir
  files = [Path(name).name for name in base_model.pool_files(run)]
  pool_made = _copy_pool(workdir.pool, files, folder)
  clusters = _list_clusters(run, provenance)
  ignore = None if clusters is None else shutil.ignore_patterns("embeddings")
  scores = folder / "scores"
  shutil.copytree(workdir.scores.path, scores, ignore=ignore, dirs_exist_ok=True)
  for source in clusters or ():
    shutil.copytree(source, folder / "clusters" / source.name, dirs_exist_ok=True)
  if "doubts" in provenance["inputs"]:
    maker = needs.find_held_out(needs.make_options(provenance["config"]))
    source = workdir.doubts(maker).path
    shutil.copytree(source, folder / "doubts" / source.name, dirs_exist_ok=True)
  shutil.copy(selection.path / KEPT, folder / KEPT)
  summary = json.loads((selection.path / "summary.json").read_text())
  card = {
    "dataset": {
      "files": files,
      "rows": len(base_model.open_pool(run)),
      "digest": pool_made["digest"],
    },
    "base": {
      "name": run.cfg.model.path,
      "hash": base_model.hash_model(base_model.base_path(run)),
    },
    "commit": _find_commit(),
    "packages": provenance["packages"],
    "command": shlex.join(["mllm-selector", *sys.argv[1:]]),
    "arm": workdir.resolve(arm),
    "kept": summary["kept"],
    "config": provenance["config"],
    "seed": provenance["seed"],
    "inputs": provenance["inputs"],
  }
  artifacts.write_text(folder / README, _describe(card))
  card["hashes"] = _hash_files(folder)
  artifacts.write_json(folder / CARD, card)


def _copy_pool(pool: Artifact, files: list[str], folder: Path) -> dict[str, Any]:
  """Copy the pool's table, summary and provenance; paths become bare file names.

  Returns:
    The provenance as it was written.
  """
  import pyarrow.parquet as pq

  provenance = pool.provenance()
  assert provenance is not None
  images = provenance["config"]["images"]
  base_names = {"data": files, "images": [Path(name).name for name in images]}
  provenance = provenance | {"config": provenance["config"] | base_names}
  source = pool.path.parent
  table = pq.read_table(source / TABLE)
  file_names = [Path(name).name for name in table["file"].to_pylist()]
  column = table.schema.get_field_index("file")
  table = table.set_column(column, "file", [file_names])
  artifacts.write_table(folder / TABLE, table)
  shutil.copy(source / SUMMARY, folder / SUMMARY)
  provenance["outputs"] = {
    name: storage.hash_file(folder / name) for name in provenance["outputs"]
  }
  artifacts.write_json(folder / pool.marker.name, provenance)
  return provenance


def _list_clusters(run: Run, provenance: dict[str, Any]) -> list[Path] | None:
  """Return folders of clusters to publish, or None if embeddings are needed instead.

  The list is empty if the selection reads neither clusters nor embeddings.
  """
  options = needs.make_options(provenance["config"])
  if needs.needs_embeddings(options):
    return None
  if "kmeans" not in options.groups.split("*"):
    return []
  clusters = run.workdir.clusters(options.clusters, provenance["seed"])
  return None if clusters.provenance() is None else [clusters.path]


def _find_commit() -> str | None:
  """Return the commit of the code, or None if it does not run from a git checkout."""
  module = Path(__file__)
  git = ["git", "-C", str(module.parent)]
  options: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
  try:
    # An installed package may lie inside the checkout of another project.
    subprocess.run([*git, "ls-files", "--error-unmatch", module.name], **options)
    return subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def _hash_files(folder: Path) -> dict[str, str]:
  paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
  names = {path.relative_to(folder).as_posix(): path for path in paths}
  # RECIPE is a temporary file of the artifact that is being made.
  left_out = (CARD, RECIPE)
  return {
    name: storage.hash_file(path)
    for name, path in names.items()
    if name not in left_out
  }


def _describe(card: dict[str, Any]) -> str:
  config = card["config"]
  return (
    f"# {card['kept']:,} rows by {config['strategy']}, budget {config['budget']}\n\n"
    f"- Dataset: {', '.join(card['dataset']['files'])}, {card['dataset']['rows']:,}"
    f" rows, digest {card['dataset']['digest']}\n"
    f"- Base: {card['base']['name']}, hash {card['base']['hash']}\n"
    f"- Code: commit {card['commit'] or 'unknown'}\n"
    f"- Command: `{card['command']}`\n\n"
    f"`{KEPT}` says for each row, by its id, whether it is kept. `scores/` holds the"
    f" scores, and `{CARD}` the config and the hash of every file. `mllm-selector"
    " verify --card=DIR` makes the selection again from these files and compares.\n"
  )


# What a value of another kind in JSON leads to.
_WRONG_KINDS = (TypeError, AttributeError, RecursionError)


def verify(folder: Path, cfg: Any) -> str:
  """Make a published selection again from its scores and config, and compare.

  Args:
    folder: The folder of the card.
    cfg: The default config; the settings in the card take precedence.

  Returns:
    A sentence that says what was compared.

  Raises:
    InputError: A file is missing or differs from the published one, or the new
      selection differs from the published one.
  """
  try:
    card = json.loads((folder / CARD).read_text())
    config, seed, hashes = card["config"], card["seed"], card["hashes"]
    needs.make_options(config)
    files = {folder / name: digest for name, digest in hashes.items()}
  except (OSError, ValueError, KeyError, *_WRONG_KINDS) as error:
    raise InputError(
      f"--card={folder}: no {CARD} of a published selection is there ({error})."
    ) from error
  for path, digest in files.items():
    if ".." in path.parts or folder not in path.parents:
      raise InputError(f"--card={folder}: {CARD} names {path}, outside the folder.")
    if not path.is_file() or storage.hash_file(path) != digest:
      raise InputError(f"{path} is not the file that was published; fetch it again.")
  pool, chosen = _select_again(folder, cfg, config, seed)
  import pyarrow.parquet as pq

  columns = ["id", "kept", "rank"]
  published = pq.read_table(folder / KEPT, columns=columns).to_pydict()
  kept = np.zeros(len(published["id"]), bool)
  rank = np.full(len(kept), -1)
  kept[pool.rows], rank[pool.rows] = chosen.kept, chosen.rank
  published_rank = [-1 if value is None else value for value in published["rank"]]
  differs = np.flatnonzero(
    (kept != published["kept"]) | (rank != np.array(published_rank))
  )
  if len(differs):
    row = int(differs[0])
    raise InputError(
      f"{folder}: {len(differs):,} of {len(kept):,} rows differ; the first is row {row}"
      f" (id {published['id'][row]}). The selection was changed, or was made by another"
      f" version (commit {card['commit']})."
    )
  return f"verify: {int(kept.sum()):,} of {len(kept):,} rows are kept, as published."


def _select_again(
  folder: Path, cfg: Any, config: dict[str, Any], seed: int
) -> tuple[candidates.Eligible, Selection]:
  with tempfile.TemporaryDirectory() as name:
    scratch = Path(name)  # keeps intermediate files out of the card
    for part in ("scores", "clusters", "doubts"):
      if (folder / part).exists():
        (scratch / part).symlink_to((folder / part).absolute())
    workdir = Workdir(scratch, pooled=folder.absolute(), scored=scratch)
    run = Run(cfg, workdir, Console(workdir.log))
    run.begin("verify")
    eligible = candidates.read_eligible(run, config, seed)
    return eligible, eligible.select(config["budget"], seed)
