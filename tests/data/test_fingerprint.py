"""The identity of a pool's files."""

import contextlib
import os

import pytest

from mllm_selector_jax.data.files import fingerprint as fingerprints
from mllm_selector_jax.data.files.fingerprint import fingerprint
from mllm_selector_jax.types import InputError
from tests.data.pools_on_the_spot import (
  make_record,
  write_images,
  write_records,
)


@pytest.fixture
def pool(tmp_path):
  folder = tmp_path / "images"
  write_images(folder, "a/1.png", "a/2.png", "unused.png")
  path = write_records(
    tmp_path / "pool.json",
    [
      make_record(0, "a/1.png"), make_record(1, "a/2.png"), make_record(2),
      make_record(3, "a/missing.png"), make_record(4, "/etc/passwd"),
      make_record(5, "a/1.png"), "no record",
    ],
  )  # fmt: skip
  return [path], str(folder)


def test_times_and_unused_files_do_not_count(pool):
  before = fingerprint(*pool)
  os.utime(pool[0][0], (1, 1))
  os.utime(os.path.join(pool[1], "a/1.png"), (1, 1))
  os.unlink(os.path.join(pool[1], "unused.png"))
  assert fingerprint(*pool) == before


def test_what_counts(pool):
  data, folder = pool
  found = [fingerprint(data, folder), fingerprint(data, None)]
  found.append(fingerprint(data, folder + "_elsewhere"))
  assert found[1] == found[2]  # nothing is there, either way
  with open(os.path.join(folder, "a/1.png"), "ab") as file:
    file.write(b"x")
  found.append(fingerprint(data, folder))
  with open(os.path.join(folder, "a/missing.png"), "wb") as file:
    file.write(b"x")
  found.append(fingerprint(data, folder))
  os.unlink(os.path.join(folder, "a/2.png"))
  found.append(fingerprint(data, folder))
  with open(data[0], "a") as file:
    file.write("\n")
  found.append(fingerprint(data, folder))
  found.append(fingerprint(data * 2, folder))
  assert len(set(found)) == len(found) - 1


def test_a_missing_file(tmp_path):
  with pytest.raises(InputError, match="does not exist"):
    fingerprint([str(tmp_path / "none.json")], None)


def test_each_pass_tells_how_far_it_is(pool, monkeypatch):
  monkeypatch.setattr(fingerprints, "CHUNK", 100)
  monkeypatch.setattr(fingerprints, "TELL_EVERY", 2)
  told = {}

  @contextlib.contextmanager
  def watch(title, unit):
    notes = told[title.removeprefix("check: "), unit] = []
    yield lambda done, total: notes.append((done, total))

  assert fingerprint(*pool, watch=watch) == fingerprint(*pool)
  size = os.path.getsize(pool[0][0])
  read = [*range(100, size, 100), size]
  assert told == {
    ("hash of the files", "byte"): [(done, size) for done in read],
    ("names of the images", "name"): [(2, None), (4, None)],
    ("sizes of the images", "image"): [(0, 4), (2, 4)],
  }
