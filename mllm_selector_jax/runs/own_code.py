"""Says which code of this package runs: its version, its hash and its git commit."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import subprocess
from pathlib import Path

_NAME = "mllm_selector_jax"
_ROOT = Path(__file__).parents[1]


@functools.cache
def hash_code() -> str:
  """Hashes the modules of this package, with their names."""
  digest = hashlib.sha256()
  for path in sorted(_ROOT.rglob("*.py")):
    digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes())
  return digest.hexdigest()


@functools.cache
def describe_code() -> dict[str, str]:
  """Describes this package's code.

  Returns:
    "sha256", the hash of its modules, which also tells changes that were not
    committed; and "commit", the git commit of the checkout that it runs from or that
    pip has installed, if there is one.
  """
  described = {"sha256": hash_code()}
  if commit := _find_commit():
    described["commit"] = commit
  return described


def _find_commit() -> str | None:
  if (_ROOT.parent / ".git").exists():
    command = ["git", "-C", str(_ROOT.parent), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
      done = subprocess.run(command, capture_output=True, text=True, timeout=10)
      return done.stdout.strip() or None
    return None
  with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
    # What pip notes of `pip install git+https://...`.
    text = importlib.metadata.distribution(_NAME).read_text("direct_url.json")
    return json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
  return None
