import http.server
import os
import subprocess
import sys
import threading

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


ANSWERS = {
  "gated": (403, "GatedRepo"),
  "absent": (401, "RepoNotFound"),
  "broken": (500, ""),
}


class Hub(http.server.BaseHTTPRequestHandler):
  """Answers as the hub does for gated, unknown and broken repositories."""

  def do_GET(self):
    status, code = next(v for k, v in ANSWERS.items() if k in self.path)
    self.send_response(status)
    self.send_header("X-Error-Code", code)
    self.send_header("Content-Length", "0")
    self.end_headers()

  do_HEAD = do_GET

  def log_message(self, *_):
    pass


@pytest.mark.parametrize(
  "name, message",
  [
    ("gated", "accepted its terms. Accept them"),
    ("absent", "no such model, or it is private. Check the name"),
    ("broken", "did not give it"),
  ],
)
def test_what_the_hub_refuses_is_explained(tmp_path, name, message):
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  command = [sys.executable, "-m", "mllm_selector_jax.main", "run", "--config=demo"]
  command += [f"--config.model.path=somebody/{name}", f"--workdir={tmp_path}/work"]
  environment = {
    **os.environ,
    "HF_HUB_OFFLINE": "0",
    "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
    "HF_HOME": str(tmp_path),
  }
  try:
    done = subprocess.run(
      command,
      env=environment,
      capture_output=True,
      text=True,
      timeout=120,
    )
  finally:
    server.shutdown()
    server.server_close()
  assert done.returncode == 2
  assert f"There is no directory somebody/{name}" in done.stderr
  assert message in done.stderr and "Traceback" not in done.stderr, done.stderr
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr


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
