"""Eight fake CPU devices, strict jax, and shapes checked against annotations."""

import os
import pathlib
import signal

from tests import compiling

os.environ["XLA_FLAGS"] = " ".join(
  (compiling.QUICK, os.environ.get("XLA_FLAGS", ""), compiling.EIGHT_DEVICES)
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Many tests, and the commands that they start, compile the same programs.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import hypothesis
import jax
import jaxtyping

import tests.shape_checks

# Before the package is first imported: the hook rewrites modules as they are read.
jaxtyping.install_import_hook(
  "mllm_selector_jax", f"{tests.shape_checks.__name__}.check"
)

# The first example of a test may compile what it calls. The gate draws the same
# examples each time, so that what it says depends on the code alone.
hypothesis.settings.register_profile("drawn", deadline=None)
hypothesis.settings.register_profile("gate", deadline=None, derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "drawn"))

# A shell lets what it starts in the background ignore Ctrl-C, and the processes that
# tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Two programs in flight can starve each other of the threads that their
# collectives wait for.
jax.config.update("jax_cpu_enable_async_dispatch", False)

ROOT = pathlib.Path(__file__).parent
# Linux allows a process 65,530 mappings of memory, a compiled program takes several of
# them, and a process that is refused one dies of a segmentation fault.
MOST_MAPPINGS = 12_000
# Tests that start processes, train models, or go through whole stages. The others take
# about two minutes: `pytest -m "not slow"`.
SLOW = (
  "bad_input",
  "data/test_chat_date.py",
  "data/test_packed.py",
  "data/test_prepare.py",
  "data/test_records.py",
  "evaluation/test_evaluate.py",
  "evaluation/test_generation_parity.py",
  "launch",
  "models",
  "scoring/test_engine.py",
  "selection/rivals",
  "stages",
  "test_accelerator.py",
  "test_kills.py",
  "test_main.py",
  "training",
)


def pytest_runtest_teardown(item, nextitem):
  """Drops the compiled programs between two files when they take too many mappings."""
  mappings = pathlib.Path("/proc/self/maps")
  if (nextitem is not None and nextitem.path == item.path) or not mappings.exists():
    return
  if mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
    jax.clear_caches()


def pytest_collection_modifyitems(items):
  """Marks the tests of slow files and folders, and puts them first.

  Processes that share the tests then end together, and what a folder's tests share is
  made once a process, since its files follow each other.
  """
  for item in items:
    path = item.path.relative_to(ROOT)
    if any(path.is_relative_to(slow) for slow in SLOW):
      item.add_marker("slow")
  items.sort(key=lambda item: item.get_closest_marker("slow") is None)
