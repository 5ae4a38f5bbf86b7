"""No module of the package reaches for the network when it is imported."""

import subprocess
import sys

# Python calls the hook for whatever opens, binds, resolves or connects a socket.
SCRIPT = """
import importlib, pkgutil, sys

events = []

def watch(event, arguments):
  if event.split(".")[0] in ("socket", "urllib", "http", "ftplib", "smtplib"):
    if event != "socket.gethostname":
      events.append((event, repr(arguments)))

sys.addaudithook(watch)
names = sys.argv[1:]
if not names:
  import mllm_selector_jax
  found = pkgutil.walk_packages(mllm_selector_jax.__path__, "mllm_selector_jax.")
  names = [module.name for module in found]
for name in names:
  try:
    importlib.import_module(name)
  except ImportError as error:  # an extra that is not installed
    assert error.name in ("torch", "wandb", "mlflow", "tensorboardX"), error
print(len(names), events)
"""


def import_modules(*names):
  """Imports these, or the whole package: their number, and the calls of sockets."""
  command = [sys.executable, "-c", SCRIPT, *names]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  count, _, events = done.stdout.strip().splitlines()[-1].partition(" ")
  return int(count), events


def test_importing_every_module_opens_no_socket(tmp_path):
  count, events = import_modules()
  assert count > 250 and events == "[]"


def test_the_test_sees_a_module_that_asks_the_network(tmp_path, monkeypatch):
  text = "import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))\n"
  (tmp_path / "asking.py").write_text(text)
  monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
  _, events = import_modules("asking")
  assert "socket.connect" in events and "127.0.0.1" in events
