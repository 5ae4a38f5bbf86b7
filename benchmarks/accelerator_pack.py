"""Carries the code and what it imports to a machine without a network, in parts.

`pack` makes an archive of the commit that is checked out and of wheels for that
machine, cuts it into parts, and writes the sha256 of each beside them. `unpack` takes
the parts that have come, in as many calls as it needs; once all are there it joins
them, and installs the wheels into a folder of their own, without a network. This file
lies beside the parts and unpacks them by itself, where no code is yet:

    python3 parts/accelerator_pack.py parts /tmp/store

What is taken to be there: Python 3.12 with pip, jax with its CUDA plug-in and NVIDIA's
libraries, torch with CUDA, and what images for such work have (`THERE`). jax's CUDA
wheels are not carried, since several are larger than a part by themselves (cuFFT 165
MB, NVSHMEM 182 MB). `pip freeze` of that machine, given by `--there`, says it exactly.
"""

import ast
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MOST = 60.0  # megabytes of a part
MANIFEST = "manifest.json"
PLATFORMS = ("2_28", "2_27", "2_17", "2_24", "2_26", "2_31")
# Of an image for jax and torch on CUDA; what else setup.py asks for is carried.
THERE = (
  "absl-py aiofiles click cloudpickle contourpy cycler etils filelock flax"
  " fonttools fsspec hf-xet httpcore httpx huggingface-hub humanize importlib-"
  " resources jax jaxlib jinja2 kiwisolver markdown-it-py markupsafe matplotlib"
  " mdurl ml-dtypes msgpack numpy opt-einsum optax orbax-checkpoint packaging peft"
  " pillow prometheus-client protobuf psutil pyarrow pygments pyparsing python-"
  " dateutil pyyaml regex requests rich safetensors scipy sentencepiece shellingham"
  " simplejson six tensorstore tokenizers torch tqdm treescope typer typing-"
  " extensions uvloop zipp"
).split()


def list_missing(there: dict[str, str | None]) -> list[str]:
  """Packages as "name==version" that this environment has for setup.py, and that lack.

  Args:
    there: versions by name of what the other machine has; None if it is not known,
      which counts as new enough, except for transformers.
  """
  waiting = [
    Requirement(text) for text in importlib.metadata.requires("mllm_selector_jax") or ()
  ]
  seen: set[str] = set()
  missing = []
  while waiting:
    wanted = waiting.pop()
    name = canonicalize_name(wanted.name)
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
      continue
    version = there.get(name, "")
    if name in there and (version is None or wanted.specifier.contains(version)):
      continue
    if name in seen:
      continue
    seen.add(name)
    own = importlib.metadata.distribution(name)
    missing.append(f"{name}=={own.version}")
    waiting += [Requirement(text) for text in own.requires or ()]
  return sorted(missing)


def read_freeze(path: Path | None) -> dict[str, str | None]:
  """Versions by name; without a file those of `THERE`, unknown."""
  if path is None:
    return dict.fromkeys(THERE)
  pairs = (line.split("==") for line in path.read_text().split() if "==" in line)
  return {canonicalize_name(name): version for name, version in pairs}


def download(packages: list[str], python: str, into: Path) -> None:
  """Their wheels for that version of Python on Linux, by pip."""
  command = [
    sys.executable,
    "-m",
    "pip",
    "download",
    "-q",
    "--no-deps",
    "-d",
    str(into),
  ]
  command += ["--only-binary=:all:", f"--python-version={python}"]
  command += ["--implementation=cp"]
  command += [f"--platform=manylinux_{name}_x86_64" for name in PLATFORMS]
  command += ["--platform=manylinux2014_x86_64", *packages]
  subprocess.run(command, check=True)


def pack(arguments: Any) -> int:
  """Writes parts and their manifest; the exit status."""
  if not 0 < arguments.megabytes <= MOST:
    print(
      f"--megabytes={arguments.megabytes}: a part has more than 0 and at most {MOST}"
    )
    return 2
  arguments.into.mkdir(parents=True, exist_ok=True)
  for old in [*arguments.into.glob("part-*"), *arguments.into.glob(MANIFEST)]:
    old.unlink()
  with tempfile.TemporaryDirectory() as folder:
    wheels = arguments.wheels
    if wheels is None:
      wheels = Path(folder) / "wheels"
      wheels.mkdir()
      packages = list_missing(read_freeze(arguments.there))
      print("carries " + ", ".join(packages))
      download(packages, arguments.python, wheels)
    archive = Path(folder) / "all.tar"
    _write_archive(archive, wheels)
    manifest = _cut(archive, arguments.into, int(arguments.megabytes * 1e6))
  (arguments.into / MANIFEST).write_text(json.dumps(manifest, indent=1))
  shutil.copy(__file__, arguments.into)
  sizes = [part["bytes"] for part in manifest["parts"]]
  print(
    f"{len(sizes)} parts of {max(sizes) / 1e6:.1f} MB at most, {sum(sizes) / 1e6:.1f}"
    f" MB in all; carry each with {MANIFEST}"
  )
  return 0


def _write_archive(archive: Path, wheels: Path) -> None:
  code = subprocess.run(
    ["git", "archive", "--format=tar.gz", "HEAD"],
    check=True,
    capture_output=True,
    cwd=ROOT,
  ).stdout
  packed = archive.with_name("code.tar.gz")
  packed.write_bytes(code)
  with tarfile.open(archive, "w") as out:
    out.add(packed, packed.name)
    for wheel in sorted(wheels.glob("*.whl")):
      out.add(wheel, f"wheels/{wheel.name}")


def _cut(archive: Path, into: Path, size: int) -> dict[str, Any]:
  """Writes the parts; their names, sizes and sums, and the whole's sum."""
  parts = []
  with archive.open("rb") as whole:
    while data := whole.read(size):
      name = f"part-{len(parts):03}"
      (into / name).write_bytes(data)
      digest = hashlib.sha256(data).hexdigest()
      parts.append({"name": name, "bytes": len(data), "sha256": digest})
  with archive.open("rb") as whole:
    return {
      "sha256": hashlib.file_digest(whole, "sha256").hexdigest(),
      "parts": parts,
    }


def unpack(parts: Path, store: Path) -> int:
  """Takes in what has come; 0 once all is installed, 75 while parts are missing.

  Args:
    parts: a folder with the manifest and some parts.
    store: where parts are kept until all are there, and then code and packages.
  """
  text = (parts / MANIFEST).read_text()
  manifest = json.loads(text)
  store.mkdir(parents=True, exist_ok=True)
  if (store / MANIFEST).exists() and (store / MANIFEST).read_text() != text:
    print(f"{store} holds parts of another archive; name an empty folder by --store")
    return 2
  (store / MANIFEST).write_text(text)
  missing, broken = _take(manifest, parts, store)
  if broken:
    print(f"not as they were packed: {', '.join(broken)}; carry them again")
    return 1
  if missing:
    print(f"still to come: {', '.join(missing)}")
    return 75
  archive = store / "all.tar"
  _join(manifest, store, archive)
  with archive.open("rb") as whole:
    if hashlib.file_digest(whole, "sha256").hexdigest() != manifest["sha256"]:
      print("the parts do not make what was packed; pack and carry them again")
      return 1
  _install(archive, store)
  return 0


def _take(manifest: dict[str, Any], parts: Path, store: Path) -> tuple[list, list]:
  """Copies sound parts to the store; names of those that are missing, and unsound."""
  missing, broken = [], []
  for part in manifest["parts"]:
    kept, came = store / part["name"], parts / part["name"]
    if not kept.exists() and came.exists():
      data = came.read_bytes()
      if hashlib.sha256(data).hexdigest() != part["sha256"]:
        broken.append(part["name"])
        continue
      kept.write_bytes(data)
    if not kept.exists():
      missing.append(part["name"])
  return missing, broken


def _join(manifest: dict[str, Any], store: Path, archive: Path) -> None:
  with archive.open("wb") as whole:
    for part in manifest["parts"]:
      whole.write((store / part["name"]).read_bytes())


def _install(archive: Path, store: Path) -> None:
  with tarfile.open(archive) as whole:
    whole.extractall(store, filter="data")
  with tarfile.open(store / "code.tar.gz") as code:
    code.extractall(store / "code", filter="data")
  wheels = [str(path) for path in sorted((store / "wheels").glob("*.whl"))]
  site = store / "site"
  if wheels:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    command += ["--no-compile", "--upgrade", f"--target={site}", *wheels]
    subprocess.run(command, check=True)
  for text in _list_unmet(store / "code" / "setup.py", site):
    print(text)
  code_folder = store.absolute() / "code"
  print(f"export PYTHONPATH={site.absolute()}:{code_folder}; cd {code_folder}")


def _list_unmet(setup: Path, site: Path) -> Iterator[str]:
  """What setup.py asks for and neither the folder nor this Python has."""
  (call,) = (
    node
    for node in ast.walk(ast.parse(setup.read_text()))
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "setup"
  )
  texts = {word.arg: word.value for word in call.keywords}["install_requires"]
  path = [str(site), *sys.path]
  for wanted in map(Requirement, ast.literal_eval(texts)):
    found = importlib.metadata.distributions(name=wanted.name, path=path)
    version = next((one.version for one in found), None)
    if version is None or not wanted.specifier.contains(version, prereleases=True):
      yield f"{wanted} is asked for, and {version or 'none'} is here; pack it too"


if __name__ == "__main__":
  sys.exit(unpack(Path(sys.argv[1]), Path(sys.argv[2])))
