"""The command line's own entry, and a tiny base."""

import pytest

from mllm_selector_jax.main import run
from tests.models import tiny


@pytest.fixture(scope="package")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def command(tmp_path, base, capsys):
  """A function of command and settings: the exit status and what was said."""

  def give(name, **settings):
    settings = {
      "model.path": base,
      "pool.demo.rows": 0,
      "pool.data": tmp_path / "pool.json",
      "pool.images": tmp_path / "images",
      **{key.replace("__", "."): value for key, value in settings.items()},
    }
    given = [f"--config.{key}={value}" for key, value in settings.items()]
    work = tmp_path / "work"
    capsys.readouterr()
    status = run(["mllm-selector", name, "--config=demo", f"--workdir={work}", *given])
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert "Traceback (" not in said and len(errors) == (status in (1, 2))
    if status in (1, 2):
      logged = (work / "log.txt").read_text()
      message = said[said.index("Error: ") :].splitlines()
      assert all(line in logged for line in message)
    return status, said

  return give
