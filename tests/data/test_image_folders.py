"""Paths of images: what is outside the folder, or no file, is never opened."""

import os

import pytest

from mllm_selector_jax.data.images.image_folders import MOST_BYTES, ImageFolders
from tests.data.test_images import encode, picture, reason_of


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / "images"
  (root / "a").mkdir(parents=True)
  (root / "a" / "good.png").write_bytes(encode(picture(), "PNG"))
  (tmp_path / "secret.png").write_bytes(encode(picture(), "PNG"))
  return root


def read(folder, name, links=True):
  return ImageFolders.of(folder, links).read(name)


GOOD = ("a/good.png", "./a/good.png", "a/../a/good.png", "../images/a/good.png")


@pytest.mark.parametrize("name", GOOD)
def test_a_path_inside_the_folder(folder, name):
  data = (folder / "a/good.png").read_bytes()
  assert read(folder, name) == data
  assert read(f"{folder}/", name) == data
  assert ImageFolders.of(folder).measure(name) == len(data)


def test_an_absolute_path_that_lies_in_a_folder_is_that_file(folder):
  data = (folder / "a/good.png").read_bytes()
  path = folder / "a/good.png"
  assert read(folder, str(path)) == data
  assert read(folder, path.as_uri()) == data
  assert read(folder, f"file://localhost{path}") == data
  os.symlink(folder, folder.parent / "link")
  # By the folder's own name, and by where it really is.
  assert read(folder.parent / "link", str(path)) == data
  assert read(folder.parent / "link", str(folder.parent / "link/a/good.png")) == data
  assert reason_of(read, folder, f"file://host{path}") == "unsafe path"
  assert reason_of(read, folder / "a", str(folder.parent / "secret.png")) == (
    "unsafe path"
  )


def test_the_first_of_several_folders_that_has_it(folder):
  other = folder.with_name("other")
  (other / "a").mkdir(parents=True)
  (other / "a" / "good.png").write_bytes(b"other")
  (other / "b.png").write_bytes(b"b")
  both = [folder, other]
  assert read(both, "b.png") == b"b"
  assert read(both, "a/good.png") == (folder / "a/good.png").read_bytes()
  assert read(both[::-1], "a/good.png") == b"other"
  assert read(both, "../other/b.png") == b"b"
  assert read(both, str(other / "b.png")) == b"b"
  assert reason_of(read, both, "c.png") == "missing image"


def test_a_name_with_a_colon_is_a_name(folder):
  for name in ("12:30.png", "mailto:x.png", "a/b:c.png"):
    (folder / name).write_bytes(b"x")
    assert read(folder, name) == b"x"


@pytest.mark.parametrize(
  "path",
  [
    "../secret.png",
    "a/../../secret.png",
    "..",
    "/etc/passwd",
    "http://host/x.png",
    "https://host/x.png",
    "file:///etc/passwd",
    "gs://b/x.png",
    "ftp://host/x.png",
    "C:\\x.png",
    "\\\\host\\x.png",
    "a\\..\\..\\x.png",
    "a/go\0od.png",
    "a",
    "//host/x.png",
  ],
)
def test_unsafe_paths(folder, path):
  assert reason_of(read, folder, path) == "unsafe path"


def test_links_are_followed_and_told_of(folder):
  secret = folder.parent / "secret.png"
  os.symlink(secret, folder / "out.png")
  os.symlink(folder.parent, folder / "up")
  os.symlink("good.png", folder / "a" / "inside.png")
  os.symlink("nowhere.png", folder / "dangling.png")
  os.symlink("loop.png", folder / "loop.png")
  os.symlink(folder, folder.parent / "linked_folder")
  folders = ImageFolders.of(folder)
  for name in ("out.png", "up/secret.png"):
    assert folders.find(name).linked
    assert folders.read(name) == secret.read_bytes()
    assert reason_of(read, folder, name, False) == "unsafe path"
  for links in (True, False):
    assert reason_of(read, folder, "loop.png", links) == "unsafe path"
    assert reason_of(read, folder, "dangling.png", links) == "missing image"
    assert ImageFolders.of(folder, links).find("a/inside.png").linked
    # The folder itself may be a link.
    linked = ImageFolders.of(folder.parent / "linked_folder", links)
    assert not linked.find("a/good.png").linked
    assert linked.read("a/inside.png")


def test_a_folder_whose_name_only_begins_alike(folder):
  other = folder.with_name("images_of_others")
  other.mkdir()
  (other / "x.png").write_bytes(encode(picture(), "PNG"))
  os.symlink(other / "x.png", folder / "x.png")
  assert reason_of(read, folder, "x.png", False) == "unsafe path"
  assert reason_of(read, folder, str(other / "x.png")) == "unsafe path"
  assert reason_of(read, folder, "../images_of_others/x.png") == "unsafe path"


def test_a_fifo_and_a_device_do_not_block(folder):
  os.mkfifo(folder / "fifo.png")
  assert reason_of(read, folder, "fifo.png") == "unsafe path"
  os.symlink("/dev/zero", folder / "zero.png")
  assert reason_of(read, folder, "zero.png") == "unsafe path"


@pytest.mark.parametrize("path", ["no.png", "a/good.png/x.png", "x" * 5000, ""])
def test_missing(folder, path):
  assert reason_of(read, folder, path) == "missing image"
  assert reason_of(read, folder / "nowhere", "x.png") == "missing image"


def test_an_oversized_file(folder):
  with open(folder / "big.png", "wb") as file:
    file.truncate(MOST_BYTES + 1)
  assert reason_of(read, folder, "big.png") == "huge image"
