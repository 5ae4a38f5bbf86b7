"""Packed pool files, read by way of one plain copy."""

import bz2
import gzip
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import compressed, mixture
from mllm_selector_jax.data.json_text import records
from mllm_selector_jax.data.pool import pool_check, pool_export
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import InputError, RunError
from tests.data.pools_on_the_spot import make_encoder, make_record

ROWS = [make_record(n) for n in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
  sink = pa.BufferOutputStream()
  with pa.CompressedOutputStream(sink, "zstd") as stream:
    stream.write(data)
  return sink.getvalue().to_pybytes()


PACK = {"gzip": gzip.compress, "zstd": zstd, "bzip2": bz2.compress}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
  """A temporary folder of the test's own."""
  (tmp_path / "temporary").mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
  return tmp_path / "temporary" / f"mllm_selector_jax-{os.getuid()}" / "unpacked"


@pytest.mark.parametrize("name", ["pool.json", "pool.jsonl.gz", "pool.parquet", "x"])
@pytest.mark.parametrize("kind", PACK)
def test_packed_lines_whatever_they_are_called(tmp_path, place, kind, name):
  path = tmp_path / name
  path.write_bytes(PACK[kind](LINES))
  file = formats.open_file(str(path))
  found = list(file.records())
  assert [record.value for record in found] == ROWS
  assert file.read(found[3].offset, found[3].length) == found[3]
  assert file.path == str(path)
  (copy,) = place.iterdir()
  assert copy.read_bytes() == LINES
  for folder in (place, place.parent):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_members_after_each_other_are_all_read(tmp_path):
  path = tmp_path / "pool.json"
  for pack in (gzip.compress, zstd, bz2.compress):
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    path.write_bytes(pack(LINES[:half]) + pack(LINES[half:]))
    assert [record.value for record in records.read_records(path)] == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_utf_16(tmp_path, encoding, pack):
  rows = [make_record(0), make_record(1, note="é 你好 🙂")]
  text = json.dumps(rows, ensure_ascii=False)
  (tmp_path / "pool.json").write_bytes(pack(text.encode(encoding)))
  found = list(records.read_records(tmp_path / "pool.json"))
  assert [record.value for record in found] == rows


def test_the_table_names_the_file_that_was_given(tmp_path, place):
  path, out = str(tmp_path / "pool.jsonl.gz"), tmp_path / "out.parquet"
  Path(path).write_bytes(gzip.compress(LINES))
  pool_check.check_pool([path], None, make_encoder(), 100, out)
  table = read_table(out)
  assert table.file.tolist() == [path] * 5
  (copy,) = place.iterdir()
  copy.unlink()  # as a machine's cleaning does, while a run is on
  assert table.record(3).value == ROWS[3]
  kept = pool_export.Kept(table, [1, 3], None, tmp_path / "images", tmp_path)
  (tmp_path / "verbatim").mkdir()
  pool_export.export_verbatim(kept, tmp_path / "verbatim")
  (part,) = mixture.expand([str(tmp_path / "verbatim")])
  assert part.file.endswith("verbatim/pool.jsonl")
  assert [r.value for r in records.read_records(part.file)] == [ROWS[1], ROWS[3]]


def test_a_file_that_changes_is_decompressed_again(tmp_path):
  path = tmp_path / "pool.jsonl.gz"
  for rows in (ROWS[:2], ROWS):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data))
    assert [record.value for record in records.read_records(path)] == rows


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("fault", ["cut", "broken"])
def test_packed_data_that_are_broken(tmp_path, place, kind, fault):
  data = bytearray(PACK[kind](os.urandom(1 << 18)))
  if fault == "broken":
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    data[-8:] = bytes(8)
  else:
    del data[-len(data) // 4 :]
  (tmp_path / "pool.json").write_bytes(data)
  with pytest.raises(InputError, match=rf"pool\.json: its {kind} data are broken"):
    formats.open_file(str(tmp_path / "pool.json"))
  assert not list(place.iterdir())


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch, place, kind):
  monkeypatch.setattr(compressed, "LEAST_CAP", 1 << 20)
  (tmp_path / "pool.json").write_bytes(PACK[kind](bytes(40 << 20)))
  with pytest.raises(InputError, match=r"decompresses to more than [0-9,]+ bytes"):
    formats.open_file(str(tmp_path / "pool.json"))
  assert not list(place.iterdir())


def test_a_full_disk(tmp_path, place):
  (tmp_path / "pool.json").write_bytes(gzip.compress(os.urandom(1 << 18)))
  script = (
    "import resource, signal, sys, tempfile\n"
    "from mllm_selector_jax.data.files import compressed\n"
    "from mllm_selector_jax.types import RunError\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
    "try:\n  compressed.unpack(sys.argv[1])\n"
    "except RunError as error:\n  print(error)\n"
  )
  environment = os.environ | {"TMPDIR": tempfile.gettempdir()}
  done = subprocess.run(
    [sys.executable, "-c", script, str(tmp_path / "pool.json")],
    capture_output=True, text=True, check=True, env=environment,
  )  # fmt: skip
  assert "could not be decompressed" in done.stdout and "bytes" in done.stdout
  assert str(place) in done.stdout and not list(place.iterdir())


def test_a_folder_of_somebody_else_is_not_used(tmp_path, place):
  (tmp_path / "pool.json").write_bytes(gzip.compress(LINES))
  place.parent.parent.joinpath("elsewhere").mkdir()
  place.parent.symlink_to(place.parent.parent / "elsewhere")
  with pytest.raises(RunError, match="is not a folder of this user"):
    formats.open_file(str(tmp_path / "pool.json"))


def test_memory_does_not_grow_with_the_file(tmp_path):
  """In a process of its own, whose peak is of these files and of nothing before."""
  for name, blocks in (("small", 10), ("large", 70)):
    with gzip.open(tmp_path / f"{name}.jsonl.gz", "wb", 1) as file:
      for _ in range(blocks):
        file.write(LINES * 500)
  script = (
    "import resource, sys\n"
    "from mllm_selector_jax.data.json_text import records\n"
    "for path in sys.argv[1:]:\n"
    "  count = sum(1 for _ in records.read_records(path))\n"
    "  print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script]
    + [str(tmp_path / f"{name}.jsonl.gz") for name in ("small", "large")],
    capture_output=True, text=True, check=True,
    env=os.environ | {"TMPDIR": tempfile.gettempdir()},
  )  # fmt: skip
  (few, before), (many, after) = (map(int, x.split()) for x in done.stdout.splitlines())
  assert (few, many) == (25_000, 175_000)
  assert (after - before) * 1000 < 133 * (many - few)  # kB; bytes of each record


def test_names_without_their_packing():
  for name, plain in (
    ("a.jsonl.gz", "a.jsonl"), ("a.tgz", "a.tar"), ("a.TAR.ZST", "a.TAR"),
    ("a.json", "a.json"), (".gz", ".gz"),
  ):  # fmt: skip
    assert compressed.plain_name(name) == plain
