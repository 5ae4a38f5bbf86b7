import pytest

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import source
from mllm_selector_jax.types import InputError


def test_a_directory_is_itself(tmp_path):
  assert huggingface.find_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
  "name", ["./nowhere", "/no/where", "a/b/c", "nowhere", "../no-such-model"]
)
def test_a_missing_directory_is_named(name):
  with pytest.raises(InputError, match="There is no directory") as error:
    huggingface.find_model(name)
  assert name in str(error.value) and "hub name such as" in str(error.value)


def test_a_hub_name_without_network_says_so():
  with pytest.raises(InputError, match="HF_HUB_OFFLINE is set") as error:
    huggingface.find_model("nobody/no-such-model")
  assert "There is no directory nobody/no-such-model" in str(error.value)


def test_a_file_is_not_a_model(tmp_path):
  path = tmp_path / "model.safetensors"
  path.write_bytes(b"")
  with pytest.raises(InputError, match="is a file"):
    huggingface.find_model(path)


@pytest.mark.parametrize(
  "content, message",
  [
    (None, "is missing"),
    (b"{", "cannot be read as JSON"),
    (b"\xff{}", "cannot be read as JSON"),
    (b"[" * 100_000, "cannot be read as JSON"),
    (b"[1]", "holds a list"),
  ],
)
def test_bad_json_is_named(tmp_path, content, message):
  path = tmp_path / "config.json"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=message) as error:
    source.read_json(path)
  assert str(path) in str(error.value)
