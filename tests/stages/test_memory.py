import platform
import subprocess
import sys

import pytest

CODE = """
import pathlib, sys
import numpy as np
from mllm_selector_jax.runs.memory import keep_freed_memory
if sys.argv[1] == "keep":
  assert keep_freed_memory()
def resident():
  status = pathlib.Path("/proc/self/status").read_text()
  return int(status.split("VmRSS:")[1].split()[0]) >> 10
before = resident()
np.ones(1 << 23).sum()  # 64 MiB, freed at once
print(resident() - before)
"""


def kept_mebibytes(mode):
  done = subprocess.run(
    [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
  )
  return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_stays_with_the_process():
  assert kept_mebibytes("default") < 16 < 48 < kept_mebibytes("keep")
