"""A LoRA adapter, peft's or LLaVA's own, merged with its base into a whole model.

  python -m mllm_selector_jax.models.huggingface.merge_adapter ADAPTER OUT [--base=DIR]

Needs torch and peft. Pickled weights are read as `convert` reads them, without
running what is in them. Of LLaVA's LoRA runs, whose base is a language model, one of
LLaVA's own checkpoints is made, with the projector that was trained beside.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.convert import convert_file
from mllm_selector_jax.models.huggingface.model_families import FAMILIES
from mllm_selector_jax.models.huggingface.model_parts import load_hf_config
from mllm_selector_jax.models.huggingface.source import find_model, read_json
from mllm_selector_jax.types import InputError

ADAPTER, EXTRA = "adapter_model", "non_lora_trainables"
DESCRIPTION = "adapter_config.json"
PROJECTOR = "mm_projector."
# Of the base, beside its weights.
COPIED = ("*token*", "vocab.json", "merges.txt", "chat_template*", "*processor*.json")


def merge(adapter: Path, out: Path, base: str | None = None) -> Path:
  """Writes the whole model; returns its directory.

  Args:
    adapter: folder with adapter_config.json.
    out: to be made.
    base: directory or hub name; None takes what the adapter says it was trained on.

  Raises:
    InputError: a folder is not what it is taken for, or base and adapter do not fit.
  """
  if not (adapter / DESCRIPTION).is_file():
    raise InputError(f"{adapter}: there is no {DESCRIPTION}, so it is no adapter.")
  if out.exists():
    raise InputError(f"{out}: there is something already; give another folder.")
  name = base or read_json(adapter / DESCRIPTION).get("base_model_name_or_path")
  if not name:
    raise InputError(f"{adapter / DESCRIPTION} names no base; give --base=DIR.")
  try:
    source = find_model(name)
  except InputError as error:
    raise InputError(f"The adapter's base: {error} Or give --base=DIR.") from error
  part = out.with_name(out.name + ".part")
  shutil.rmtree(part, ignore_errors=True)
  try:
    with tempfile.TemporaryDirectory() as temporary:
      _merge(adapter, source, part, Path(temporary))
    part.rename(out)
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise
  return out


def _merge(adapter: Path, source: Path, out: Path, temporary: Path) -> None:
  import peft

  _find_weights(adapter, ADAPTER, temporary)
  shutil.copy(adapter / DESCRIPTION, temporary)
  model = _load_base(source)
  try:
    model = peft.PeftModel.from_pretrained(model, str(temporary))
  except (ValueError, RuntimeError, KeyError, TypeError) as error:
    raise InputError(f"{adapter} does not fit {source}: {error}") from error
  model.merge_and_unload().save_pretrained(str(out))
  for pattern in COPIED:
    for path in source.glob(pattern):
      shutil.copyfile(path, out / path.name)
  if "mm_vision_tower" in _read_config(adapter):
    _add_projector(adapter, out, temporary)


def _load_base(source: Path) -> Any:
  """The base as a model of torch, in the type that it is saved in."""
  import transformers

  config = load_hf_config(source)
  kind: Any = transformers.AutoModelForCausalLM
  if config.model_type in FAMILIES:
    kind = getattr(transformers, FAMILIES[config.model_type].architecture)
  return kind.from_pretrained(str(source), dtype="auto", local_files_only=True)


def _add_projector(adapter: Path, out: Path, temporary: Path) -> None:
  """Makes a merged decoder one of LLaVA's own checkpoints."""
  from safetensors.torch import load_file, save_file

  found = load_file(_find_weights(adapter, EXTRA, temporary))
  projector = {
    f"model.{PROJECTOR}{name.rpartition(PROJECTOR)[2]}": tensor
    for name, tensor in found.items()
    if PROJECTOR in name
  }
  if len(projector) != len(found) or not projector:
    raise InputError(
      f"{adapter}: {EXTRA} holds {', '.join(sorted(found)[:5])}; only the projector"
      f" ({PROJECTOR}*) can be added. Merge it by LLaVA's"
      " scripts/merge_lora_weights.py."
    )
  save_file(projector, str(out / "mm_projector.safetensors"), metadata={"format": "pt"})
  shutil.copyfile(adapter / "config.json", out / "config.json")


def _find_weights(adapter: Path, name: str, temporary: Path) -> Path:
  """A file of the adapter's weights, or what a pickled one converts to."""
  target = temporary / f"{name}.safetensors"
  if (adapter / target.name).is_file():
    shutil.copyfile(adapter / target.name, target)
  elif (adapter / f"{name}.bin").is_file():
    convert_file(adapter / f"{name}.bin", target)
  else:
    raise InputError(f"{adapter}: there is neither {target.name} nor {name}.bin.")
  return target


def _read_config(folder: Path) -> dict[str, Any]:
  path = folder / "config.json"
  return read_json(path) if path.is_file() else {}


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("adapter", type=Path, help="a folder with adapter_config.json")
  parser.add_argument("out", type=Path, help="the folder that is made")
  parser.add_argument("--base", help="directory or hub name of the adapter's base")
  flags = parser.parse_args(argv)
  try:
    print(f"wrote {merge(flags.adapter, flags.out, flags.base)}")
  except InputError as error:
    print(f"Error: {error}", file=sys.stderr)
    return 2
  except ImportError:
    print("Error: torch and peft are needed: pip install torch peft", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
