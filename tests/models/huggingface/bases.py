"""Ways to spoil or vary a model directory, for the tests beside."""

import json
import shutil
from pathlib import Path

import numpy as np
import safetensors.numpy


def copy(base: Path, folder: Path) -> Path:
  return Path(shutil.copytree(base, folder))


def edit_json(path: Path, change) -> None:
  """Applies `change` to the JSON object in a file."""
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value))


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
  return safetensors.numpy.load_file(folder / "model.safetensors")


def edit_tensors(folder: Path, change) -> None:
  """Applies `change` to the dict of tensors of a folder."""
  tensors = read_tensors(folder)
  change(tensors)
  safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def shard(folder: Path, count: int) -> dict[str, str]:
  """Splits model.safetensors into several; returns the weight map."""
  tensors = read_tensors(folder)
  (folder / "model.safetensors").unlink()
  names = sorted(tensors)
  where = {
    name: f"model-{1 + place % count:05}-of-{count:05}.safetensors"
    for place, name in enumerate(names)
  }
  for file in set(where.values()):
    safetensors.numpy.save_file(
      {name: tensors[name] for name in names if where[name] == file}, folder / file
    )
  index = {"metadata": {}, "weight_map": where}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  return where
