"""Raw third-party sources as they lie on disk: repositories and packages.

`--source` is a folder that holds, for each source, either the git directory of a
GitHub repository below `OWNER+NAME` (itself, in `repo`, or in their `.git`), or a
package as `npm pack NAME@VERSION` writes it, `NAME-VERSION.tgz`.
"""

import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mllm_selector_jax.types import InputError

GIT_PLACES = ("", ".git", "repo", "repo/.git")


@dataclass(frozen=True)
class Repository:
  """A public GitHub repository at one commit.

  Attributes:
    name: owner and name.
    version: the commit, 40 hexadecimal digits.
    licence: as found in the repository, and of the data as far as it is known.
  """

  name: str
  version: str
  licence: str

  def _find(self, folder: Path) -> Path:
    base = folder / self.name.replace("/", "+")
    for place in GIT_PLACES:
      if (base / place / "HEAD").is_file():
        return base / place
    raise InputError(
      f"{base}: no git directory found. Clone https://github.com/{self.name} with "
      f"`git clone --bare` to {base}; commit {self.version} is read."
    )

  def list_names(self, folder: Path, prefix: str) -> list[str]:
    """Lists the files below a path of the repository, sorted."""
    command = ["ls-tree", "-r", "-z", "--name-only", self.version, prefix]
    done = self._git(folder, command, b"")
    return sorted(name for name in done.decode().split("\0") if name)

  def read(self, folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yields files of the repository by name, in the order of the names."""
    names = list(names)
    request = "".join(f"{self.version}:{name}\n" for name in names).encode()
    answer = memoryview(self._git(folder, ["cat-file", "--batch"], request))
    place = 0
    for name in names:
      end = place + bytes(answer[place : place + 4096]).index(b"\n")
      head = bytes(answer[place:end]).split()
      if len(head) != 3 or head[1] != b"blob":
        raise InputError(f"{self.name} at {self.version} lacks {name}.")
      size = int(head[2])
      yield name, bytes(answer[end + 1 : end + 1 + size])
      place = end + size + 2

  def read_one(self, folder: Path, name: str) -> bytes:
    """Returns one file of the repository."""
    return next(self.read(folder, [name]))[1]

  def _git(self, folder: Path, command: list[str], request: bytes) -> bytes:
    git = ["git", f"--git-dir={self._find(folder)}", *command]
    done = subprocess.run(git, input=request, capture_output=True)
    if done.returncode:
      raise InputError(
        f"{self.name}: commit {self.version} cannot be read from {folder}: "
        f"{done.stderr.decode().strip()}"
      )
    return done.stdout


@dataclass(frozen=True)
class Package:
  """A package of the npm registry at one version.

  Attributes:
    name: of the package.
    version: of the package.
    licence: of what is read from it, as found in the package.
  """

  name: str
  version: str
  licence: str

  def read(self, folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yields files of the package by name, sorted by name."""
    path = folder / f"{self.name}-{self.version}.tgz"
    if not path.is_file():
      raise InputError(
        f"{path} is missing. Run `npm pack {self.name}@{self.version}` in {folder}."
      )
    wanted, found = set(names), {}
    with tarfile.open(path) as archive:
      for member in archive:
        name = member.name.removeprefix("package/")
        if name in wanted:
          found[name] = archive.extractfile(member).read()
    if missing := sorted(wanted - set(found)):
      raise InputError(f"{path} lacks {missing[0]} and {len(missing) - 1} others.")
    yield from sorted(found.items())

  def read_one(self, folder: Path, name: str) -> bytes:
    """Returns one file of the package."""
    return next(self.read(folder, [name]))[1]


Source = Repository | Package
