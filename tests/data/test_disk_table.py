"""Tables on disk, against Python's own sets and dicts."""

import concurrent.futures
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import pytest

from mllm_selector_jax.data.files import disk_table
from mllm_selector_jax.data.files.disk_table import DiskTable
from mllm_selector_jax.types import RunError

# Lone surrogates and NUL among them, which JSON's escapes can spell.
ANY_TEXT = st.text(st.characters(), max_size=8)


@hypothesis.given(st.lists(st.tuples(ANY_TEXT, st.text(st.characters(codec="utf-8")))))
def test_keys_and_texts_are_those_of_a_dict(items):
  table, expected = DiskTable(), {}
  for key, text in items:
    assert table.add(key, text) == (key not in expected)
    expected.setdefault(key, text)
  assert list(table) == sorted(expected) and len(table) == len(expected)
  for key, text in expected.items():
    assert table.get(key) == text and key in table
  assert table.get("another key") is None


def test_keys_are_listed_in_order_beyond_what_is_read_at_once():
  table, keys = DiskTable(), [f"part{n % 5}/{n}" for n in range(3500)]
  for key in keys:
    table.add(key)
  assert list(table) == sorted(keys)


def test_threads_use_one_table():
  table = DiskTable()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    new = list(pool.map(lambda n: table.add(f"{n % 500}", "text"), range(4000)))
  assert sum(new) == len(table) == 500


GROWTH = """
import pathlib, re
from mllm_selector_jax.data.files.disk_table import DiskTable
def measure():
  status = pathlib.Path("/proc/self/status").read_text()
  return int(re.search(r"RssAnon:\\s*([0-9]+)", status)[1]) >> 10
table, begin = DiskTable(), measure()
for number in range(400_000):
  table.add(f"{number * 7919 % 400_009:06d}", "x" * 200)
  assert measure() < begin + 60 if number % 10_000 == 0 else True, number
assert len(table) == 400_000
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts():
  done = subprocess.run(
    [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr


FULL = """
import resource
from mllm_selector_jax.data.files.disk_table import DiskTable
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
table = DiskTable()
for number in range(400_000):
  table.add(f"{number}", "x" * 2000)
"""


def test_a_full_folder_of_temporary_files_is_told():
  done = subprocess.run(
    [sys.executable, "-c", FULL], capture_output=True, text=True, check=False
  )
  assert RunError.__name__ in done.stderr and "SQLITE_TMPDIR" in done.stderr
  assert f"exceeds {disk_table.CACHE >> 10} MiB" in done.stderr


SPILLED = """
import os, sys
from mllm_selector_jax.data.files.disk_table import DiskTable
table = DiskTable()
for number in range(40_000):
  table.add(f"{number}", "x" * 2000)
open_now = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
files = [os.readlink(path) for path in open_now if os.path.lexists(path)]
assert any(file.startswith(sys.argv[1]) for file in files), files
os._exit(9)
"""


def test_the_file_is_gone_with_the_process(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", SPILLED, str(tmp_path)],
    env={"SQLITE_TMPDIR": str(tmp_path)},
    check=False,
  )
  assert done.returncode == 9 and list(tmp_path.iterdir()) == []
