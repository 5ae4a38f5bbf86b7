"""Paths of images: what is outside the folder, or no file, is never opened."""

import hashlib
import os

import pytest

from mllm_selector_jax.data import images
from tests.data.test_images import encode, picture, reason_of


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / "images"
  (root / "a").mkdir(parents=True)
  (root / "a" / "good.png").write_bytes(encode(picture(), "PNG"))
  (tmp_path / "secret.png").write_bytes(encode(picture(), "PNG"))
  return root


def test_reads_image_and_hash(folder):
  image, digest = images.read_image(folder, "a/good.png")
  assert image.mode == "RGB"
  assert digest == hashlib.sha256((folder / "a/good.png").read_bytes()).hexdigest()
  images.read_image(str(folder), "./a/good.png")


@pytest.mark.parametrize(
  "path",
  [
    "../secret.png",
    "a/../../secret.png",
    "a/../a/good.png",
    "..",
    "/etc/passwd",
    "http://host/x.png",
    "https://host/x.png",
    "file:///etc/passwd",
    "gs://b/x.png",
    "data:image/png;base64,AAAA",
    "C:\\x.png",
    "\\\\host\\x.png",
    "a\\..\\..\\x.png",
    "a/go\0od.png",
    "a",
    "//host/x.png",
  ],
)
def test_unsafe_paths(folder, path):
  assert reason_of(images.read_file, folder, path) == "unsafe path"


def test_links(folder):
  os.symlink(folder.parent / "secret.png", folder / "out.png")
  os.symlink(folder.parent, folder / "up")
  os.symlink("good.png", folder / "a" / "inside.png")
  os.symlink("nowhere.png", folder / "dangling.png")
  os.symlink("loop.png", folder / "loop.png")
  os.symlink(folder, folder.parent / "linked_folder")
  assert reason_of(images.read_file, folder, "out.png") == "unsafe path"
  assert reason_of(images.read_file, folder, "up/secret.png") == "unsafe path"
  assert reason_of(images.read_file, folder, "loop.png") == "unsafe path"
  assert reason_of(images.read_file, folder, "dangling.png") == "missing image"
  assert images.read_file(folder, "a/inside.png")
  assert images.read_file(folder.parent / "linked_folder", "a/good.png")


def test_a_folder_whose_name_only_begins_alike(folder):
  other = folder.with_name("images_of_others")
  other.mkdir()
  (other / "x.png").write_bytes(encode(picture(), "PNG"))
  os.symlink(other / "x.png", folder / "x.png")
  assert reason_of(images.read_file, folder, "x.png") == "unsafe path"


def test_a_fifo_and_a_device_do_not_block(folder):
  os.mkfifo(folder / "fifo.png")
  assert reason_of(images.read_file, folder, "fifo.png") == "unsafe path"
  os.symlink("/dev/zero", folder / "zero.png")
  assert reason_of(images.read_file, folder, "zero.png") == "unsafe path"


@pytest.mark.parametrize("path", ["no.png", "a/good.png/x.png", "x" * 5000, ""])
def test_missing(folder, path):
  assert reason_of(images.read_file, folder, path) == "missing image"
  assert reason_of(images.read_file, folder / "nowhere", "x.png") == "missing image"


def test_empty_and_oversized_files(folder):
  (folder / "empty.png").write_bytes(b"")
  assert reason_of(images.read_image, folder, "empty.png") == "unreadable image"
  with open(folder / "big.png", "wb") as file:
    file.truncate(images.MOST_BYTES + 1)
  assert reason_of(images.read_image, folder, "big.png") == "huge image"
