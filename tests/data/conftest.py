"""Plain copies of packed pools go to a temporary folder of the tests' own."""

import tempfile

import pytest

from tests.data.several_images import check, draw_images, make_records, write_pool


@pytest.fixture(autouse=True, scope="session")
def temporary_folder(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """The folder of the images of `several_images`."""
  return draw_images(tmp_path_factory.mktemp("several"))


@pytest.fixture(params=["files", "parquet"])
def checked(request, place, tmp_path):
  """Summary, table, and the folder of the images, None where they lie inside."""
  path, images = write_pool(request.param, make_records(), place, tmp_path)
  return *check(path, images, tmp_path / "table"), images
