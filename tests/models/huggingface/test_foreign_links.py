"""Links in a model's folder: followed to models, and nowhere else."""

import json
import shutil

import pytest

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import InputError
from tests.models import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer_config.json", "merges.txt"])
def test_a_link_to_a_file_of_the_user_is_refused(base, tmp_path, name):
  secret = tmp_path / "home" / "secret.json"
  secret.parent.mkdir()
  secret.write_text(json.dumps({"auths": {"host": "password"}}))
  folder = shutil.copytree(base, tmp_path / "base")
  (folder / name).unlink(missing_ok=True)
  (folder / name).symlink_to(secret)
  with pytest.raises(InputError, match=f"{name} is a link to .*secret.json"):
    huggingface.read_processor(folder)
  # A config.json there does not make a model of a folder.
  (secret.parent / "config.json").write_text("{}")
  with pytest.raises(InputError, match="is a link to"):
    huggingface.read_config(folder)


def test_links_to_the_hub_s_blobs_and_to_another_model_are_followed(base, tmp_path):
  snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
  blobs = tmp_path / "models--a--b" / "blobs"
  snapshot.mkdir(parents=True)
  blobs.mkdir()
  for path in base.iterdir():
    shutil.copy(path, blobs / path.name)
    (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
  shared = tmp_path / "shared"
  shared.mkdir()
  for path in base.iterdir():
    (shared / path.name).symlink_to(path)
  wanted = huggingface.read_config(base)
  for folder in (snapshot, shared):
    assert huggingface.read_config(folder) == wanted
