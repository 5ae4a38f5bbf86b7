"""push, in a process of its own, against a server that answers as a hub does."""

import base64
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from mllm_selector_jax.pipeline import hub_push
from mllm_selector_jax.types import InputError


class Hub(http.server.BaseHTTPRequestHandler):
  """Takes repositories and commits, and refuses those without the token."""

  def do_POST(self):
    text = self.rfile.read(int(self.headers["Content-Length"]))
    path = self.path.split("?")[0]
    self.server.asked.append(path)
    if self.headers.get("authorization") != "Bearer hf_right":
      return self.answer(401, {"error": "Invalid token"})
    address = f"http://127.0.0.1:{self.server.server_port}"
    if path == "/api/repos/create":
      made = self.server.made = json.loads(text)
      folder = "datasets/" if made.get("type") == "dataset" else ""
      name = f"{made.get('organization', 'me')}/{made['name']}"
      self.answer(200, {"url": f"{address}/{folder}{name}"})
    elif "/preupload/" in path:
      files = [
        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
        for file in json.loads(text)["files"]
      ]
      self.answer(200, {"files": files})
    elif "/commit/" in path:
      for line in map(json.loads, text.splitlines()):
        if line["key"] == "file":
          content = base64.b64decode(line["value"]["content"])
          self.server.files[line["value"]["path"]] = content
      self.answer(200, {"commitUrl": f"{address}/me/it/commit/abc", "commitOid": "abc"})
    else:
      self.answer(200, {})

  def do_GET(self):
    self.server.asked.append(self.path)
    self.answer(200, {"id": "me/it", "sha": "abc", "siblings": [], "private": True})

  def answer(self, status, value):
    body = json.dumps(value).encode()
    self.send_response(status)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *values):
    pass


@pytest.fixture
def hub():
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
  server.asked, server.files, server.made = [], {}, None
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


def push(hub, folder, *flags, token="hf_right"):
  environment = {
    **os.environ,
    "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
    "HF_HUB_OFFLINE": "0",
    "HF_TOKEN": token,
    "HF_HUB_DISABLE_TELEMETRY": "1",
  }
  command = [sys.executable, "-m", "mllm_selector_jax.main", "push"]
  return subprocess.run(
    [*command, f"--folder={folder}", "--repo=me/it", *flags],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )


def is_private(made):
  """As huggingface_hub asks for it from version 2 on, or before."""
  return made["visibility"] == "private" if "visibility" in made else made["private"]


def write(folder, *names):
  folder.mkdir()
  for name in names:
    (folder / name).write_text(f'{{"of": "{name}"}}')
  return folder


def test_a_model_is_uploaded_whole_to_a_private_repository(hub, tmp_path):
  folder = write(tmp_path / "hf", "config.json", "model.safetensors")
  done = push(hub, folder)
  assert done.returncode == 0, done.stderr
  assert "is the model" in done.stdout and "commit abc" in done.stdout
  assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
  assert is_private(hub.made) and hub.made.get("type", "model") == "model"


def test_a_card_is_a_data_set_and_public_if_asked(hub, tmp_path):
  folder = write(tmp_path / "card", "card.json", "README.md")
  done = push(hub, folder, "--public")
  assert done.returncode == 0, done.stderr
  assert set(hub.files) == {"card.json", "README.md"}
  assert hub.made["type"] == "dataset" and not is_private(hub.made)


def test_what_the_hub_refuses_is_one_message(hub, tmp_path):
  done = push(hub, write(tmp_path / "hf", "config.json"), token="hf_wrong")
  assert done.returncode == 1 and not hub.files
  assert "did not take me/it" in done.stderr and "Traceback" not in done.stderr


def test_only_cards_and_models_are_pushed(tmp_path):
  with pytest.raises(InputError, match=r"has none of card\.json, config\.json"):
    hub_push.find_kind(tmp_path)
