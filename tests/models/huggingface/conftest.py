import pytest

from tests.models import tiny


@pytest.fixture(scope="session")
def base(tmp_path_factory):
  """A tiny base directory; not to be changed."""
  return tiny.make_base(tmp_path_factory.mktemp("tiny") / "base")
