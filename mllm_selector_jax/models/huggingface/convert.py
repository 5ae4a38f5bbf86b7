"""Pickled weights to safetensors: the only place that reads pickles.

  python -m mllm_selector_jax.models.huggingface.convert DIR_OR_FILE

Needs torch, whose loader is told to take weights only: a file that would run code
is refused. The pickled files stay where they are.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from mllm_selector_jax.types import InputError

INDEX = "pytorch_model.bin.index.json"


def convert(path: str | os.PathLike) -> list[Path]:
  """Writes a .safetensors file beside every pickled one.

  Args:
    path: a file; or a directory with pytorch_model*.bin (and their index) or
      mm_projector.bin.

  Returns:
    The files that were written.

  Raises:
    InputError: nothing to convert, or a file that holds more than tensors.
  """
  path = Path(path)
  if path.is_file():
    return [convert_file(path, path.with_suffix(".safetensors"))]
  names = sorted(file.name for file in path.glob("*.bin"))
  if not names:
    raise InputError(f"{path}: there is no *.bin file to convert.")
  targets = {
    name: name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
    for name in names
  }
  index = None
  if (path / INDEX).is_file():
    index = json.loads((path / INDEX).read_text("utf-8"))
    missing = sorted(set(index["weight_map"].values()) - set(names))
    if missing:
      raise InputError(f"{path / INDEX} names missing files: {', '.join(missing)}.")
  written = [convert_file(path / name, path / targets[name]) for name in names]
  if index is not None:
    where = {tensor: targets[file] for tensor, file in index["weight_map"].items()}
    target = path / "model.safetensors.index.json"
    part = target.with_name(target.name + ".part")
    part.write_text(json.dumps({**index, "weight_map": where}, indent=1), "utf-8")
    os.replace(part, target)
    written.append(target)
  return written


def convert_file(path: Path, target: Path) -> Path:
  """Writes one pickled file's tensors as safetensors; returns the target.

  Raises:
    InputError: it holds more than tensors.
  """
  import torch
  from safetensors.torch import save_file

  try:
    tensors = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
  except Exception as error:
    # Unpickling errors, refused globals, files of another format.
    raise InputError(
      f"{path} is not a file of plain weights, and was not run:"
      f" {str(error).splitlines()[0]}"
    ) from error
  if not isinstance(tensors, dict) or not all(
    isinstance(value, torch.Tensor) for value in tensors.values()
  ):
    raise InputError(f"{path} holds something else than a dict of tensors.")
  # Tensors that share memory, as tied ones do, are written one by one.
  own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
  part = target.with_name(target.name + ".part")
  save_file(own, str(part), metadata={"format": "pt"})
  part.chmod(0o644)
  os.replace(part, target)
  return target


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("path", help="a directory with *.bin files, or one such file")
  path = parser.parse_args(argv).path
  try:
    for written in convert(path):
      print(f"wrote {written}")
  except InputError as error:
    print(f"Error: {error}", file=sys.stderr)
    return 2
  except ImportError:
    print(
      "Error: torch is needed to read pickled weights: pip install torch",
      file=sys.stderr,
    )
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
