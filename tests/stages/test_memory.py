import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from mllm_selector_jax.stages.memory import keep_freed_memory
if sys.argv[1] == "keep":
  assert keep_freed_memory()
def fill():
  np.ones(1 << 23).sum()  # 64 MiB, freed at once
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
  fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(mode):
  done = subprocess.run(
    [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
  )
  return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_pages_are_faulted_in_once():
  assert count_faults("keep") < 500 < count_faults("default")
