"""A published selection: ids, scores, config and a card; and drawing it again.

The folder holds what a selection follows from, as a workdir has it: the checked
pool's table (no records, no images), the scores, and a held-out loss where the bound
reads one. Embeddings, most of what there is, are left out where the clusters that
were made of them are all that the selection reads. `verify` needs nothing else.
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


def write_card(run: Run, arm: str, made: dict[str, Any], folder: Path) -> None:
  """Writes the card of an arm's selection and all that it follows from.

  Args:
    run: at the pool and the scores of the selection.
    arm: whose.
    made: the selection's provenance.
    folder: to write into.
  """
  selection, place = run.workdir.selection(arm), run.workdir
  files = [Path(name).name for name in base_model.pool_files(run)]
  pool_made = _copy_pool(place.pool, files, folder)
  clusters = _stand_in(run, made)
  without = None if clusters is None else shutil.ignore_patterns("embeddings")
  scores = folder / "scores"
  shutil.copytree(place.scores.path, scores, ignore=without, dirs_exist_ok=True)
  for found in clusters or ():
    shutil.copytree(found, folder / "clusters" / found.name, dirs_exist_ok=True)
  if "doubts" in made["inputs"]:
    maker = needs.find_held_out(needs.make_options(made["config"]))
    found = place.doubts(maker).path
    shutil.copytree(found, folder / "doubts" / found.name, dirs_exist_ok=True)
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
    "packages": made["packages"],
    "command": shlex.join(["mllm-selector", *sys.argv[1:]]),
    "arm": arm,
    "kept": summary["kept"],
    "config": made["config"],
    "seed": made["seed"],
    "inputs": made["inputs"],
  }
  artifacts.write_text(folder / README, _describe(card))
  card["hashes"] = _hash_files(folder)
  artifacts.write_json(folder / CARD, card)


def _copy_pool(pool: Artifact, files: list[str], folder: Path) -> dict[str, Any]:
  """The pool's table, summary and provenance, not telling where its files lie."""
  import pyarrow.parquet as pq

  made = pool.provenance()
  images = made["config"]["images"]
  own = {"data": files, "images": [Path(name).name for name in images]}
  made = made | {"config": made["config"] | own}
  source = pool.path.parent
  table = pq.read_table(source / TABLE)
  names = [Path(name).name for name in table["file"].to_pylist()]
  place = table.schema.get_field_index("file")
  table = table.set_column(place, "file", [names])
  artifacts.write_table(folder / TABLE, table)
  shutil.copy(source / SUMMARY, folder / SUMMARY)
  made["outputs"] = {name: storage.hash_file(folder / name) for name in made["outputs"]}
  artifacts.write_json(folder / pool.marker.name, made)
  return made


def _stand_in(run: Run, made: dict[str, Any]) -> list[Path] | None:
  """Clusters that are read in place of embeddings; None if these are read."""
  options = needs.make_options(made["config"])
  if needs.needs_embeddings(options):
    return None
  if "kmeans" not in options.groups.split("*"):
    return []
  clusters = run.workdir.clusters(options.clusters, made["seed"])
  return None if clusters.provenance() is None else [clusters.path]


def _find_commit() -> str | None:
  """The commit of the code where it is a git checkout."""
  own = Path(__file__)
  git = ["git", "-C", str(own.parent)]
  options = {"capture_output": True, "text": True, "check": True}
  try:
    # An installed package may lie in somebody else's checkout.
    subprocess.run([*git, "ls-files", "--error-unmatch", own.name], **options)
    return subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def _hash_files(folder: Path) -> dict[str, str]:
  paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
  names = {path.relative_to(folder).as_posix(): path for path in paths}
  left_out = (CARD, RECIPE)  # the latter is of the artifact that is being made
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
    f"`{KEPT}` has every row's id and whether it is kept, `scores/` its scores,"
    f" `{CARD}` the config and the hash of every file. `mllm-selector verify"
    " --card=DIR` draws the selection again from them and compares.\n"
  )


def verify(folder: Path, cfg: Any) -> str:
  """Draws a published selection again from its scores and its config.

  Args:
    folder: the card's.
    cfg: the default config; what the card says goes before it.

  Returns:
    What was compared, in words.

  Raises:
    InputError: a file is missing or is not the one that was published, or the
      selection comes out otherwise.
  """
  try:
    card = json.loads((folder / CARD).read_text())
    config, seed, hashes = card["config"], card["seed"], card["hashes"]
  except (OSError, ValueError, KeyError) as error:
    raise InputError(
      f"--card={folder}: no {CARD} of a published selection is there ({error})."
    ) from error
  for name, wanted in hashes.items():
    path = folder / name
    if not path.is_file() or storage.hash_file(path) != wanted:
      raise InputError(f"{path} is not the file that was published; fetch it again.")
  pool, chosen = _draw_again(folder, cfg, config, seed)
  import pyarrow.parquet as pq

  columns = ["id", "kept", "rank"]
  published = pq.read_table(folder / KEPT, columns=columns).to_pydict()
  found = np.zeros(len(published["id"]), bool)
  rank = np.full(len(found), -1)
  found[pool.rows], rank[pool.rows] = chosen.kept, chosen.rank
  known = [-1 if value is None else value for value in published["rank"]]
  differs = np.flatnonzero((found != published["kept"]) | (rank != np.array(known)))
  if len(differs):
    row = int(differs[0])
    raise InputError(
      f"{folder}: {len(differs):,} of {len(found):,} rows come out otherwise; row {row}"
      f" (id {published['id'][row]}) is the first. The selection was changed, or made"
      f" by another version (commit {card['commit']})."
    )
  return f"verify: {int(found.sum()):,} of {len(found):,} rows are kept, as published."


def _draw_again(
  folder: Path, cfg: Any, config: dict[str, Any], seed: int
) -> tuple[candidates.Eligible, Selection]:
  with tempfile.TemporaryDirectory() as name:
    own = Path(name)  # what is made on the way does not go into the card
    for part in ("scores", "clusters", "doubts"):
      if (folder / part).exists():
        (own / part).symlink_to((folder / part).absolute())
    workdir = Workdir(own, pooled=folder.absolute(), scored=own)
    run = Run(cfg, workdir, Console(workdir.log))
    run.begin("verify")
    eligible = candidates.read_eligible(run, config, seed)
    return eligible, eligible.select(config["budget"], seed)
