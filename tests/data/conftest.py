"""Plain copies of packed pools go to a temporary folder of the tests' own."""

import tempfile

import pytest


@pytest.fixture(autouse=True, scope="session")
def temporary_folder(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    yield
