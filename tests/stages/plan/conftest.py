"""Programs that tests compile are kept in a folder of the tests."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """The folder of the user's caches, empty when a test begins."""
  folder = tmp_path / "cache"
  monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
  return folder
