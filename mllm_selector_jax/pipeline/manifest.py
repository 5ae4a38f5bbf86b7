"""Lists the hashes of everything that a workdir holds, as `sha256sum -c` reads them."""

import json
from collections.abc import Iterator
from pathlib import Path

import mllm_selector_jax
from mllm_selector_jax import storage
from mllm_selector_jax.runs import artifacts, own_code
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError

NAME = "SHA256SUMS"


def write_manifest(run: Run) -> Path:
  """Writes `SHA256SUMS`, with one line for each file of every complete artifact.

  The hashes of outputs are those that their provenance states, so that a file which was
  changed since is found out; those of the provenances are taken now.

  Returns:
    The file.

  Raises:
    InputError: the workdir holds no complete artifact.
  """
  folder = run.workdir.path
  hashes = dict(_list_hashes(folder))
  if not hashes:
    raise InputError(
      f"{folder} holds no complete artifact: run `mllm-selector run` with the same"
      " --config and --workdir first."
    )
  code = own_code.describe_code()
  header = [f"# mllm_selector_jax {mllm_selector_jax.__version__}"]
  header += [f"# {name} of its code: {value}" for name, value in sorted(code.items())]
  lines = [_format_line(name, digest) for name, digest in sorted(hashes.items())]
  path = folder / NAME
  artifacts.write_text(path, "\n".join([*header, *lines]) + "\n")
  if run.bucket is not None:
    run.bucket.send_file(path)
  run.say(
    f"{path}: {len(hashes):,} files. `cd {folder} && sha256sum --quiet -c {NAME}`"
    " checks them."
  )
  return path


def _list_hashes(folder: Path) -> Iterator[tuple[str, str]]:
  """Yields the name and the hash of each file of every complete artifact."""
  for marker in sorted(folder.rglob(f"*{artifacts.MARKER}")):
    inside = marker.relative_to(folder).parent
    if any(part.endswith((".partial", ".old")) for part in inside.parts):
      continue
    outputs = json.loads(marker.read_text())["outputs"]
    yield str(inside / marker.name), storage.hash_file(marker)
    for name, digest in outputs.items():
      yield str(inside / name), digest


def _format_line(name: str, digest: str) -> str:
  """Writes a line as sha256sum does, which escapes what would end a name."""
  escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
  return f"{chr(92) if escaped != name else ''}{digest}  {escaped}"
