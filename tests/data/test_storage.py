"""Pools in a bucket: a real file system in memory stands where the cloud's would."""

import gzip
import json

import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from mllm_selector_jax import storage
from mllm_selector_jax.data.files import fingerprint, mixture
from mllm_selector_jax.data.pool import pool_check
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import InputError
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import (
  make_encoder,
  make_record,
  write_images,
)


class Bucket(MemoryFileSystem):
  """Knows its files by gs://bucket/name."""

  protocol = ("gcs", "gs")
  store: dict = {}  # noqa: RUF012 as fsspec has it
  pseudo_dirs = [""]  # noqa: RUF012

  def __init__(self, *rest, finalize_on_close=True, **options):
    super().__init__(*rest, **options)

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.replace("gs://", "memory://"))


@pytest.fixture
def bucket(monkeypatch):
  # For this test alone: others of the process speak to a server.
  monkeypatch.setitem(_registry, "gcs", Bucket)
  bucket = Bucket(skip_instance_cache=True)
  monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: bucket)
  Bucket.store.clear()
  return bucket


@pytest.mark.parametrize("name", ["llava", "lines", "tar", "parquet", "parquet paths"])
def test_the_same_rows_from_a_bucket(bucket, tmp_path, name):
  folder = tmp_path / "images"
  write_images(folder, "a/1.png", "a/2.png")
  records = [make_record(n, f"a/{n % 3}.png" if n % 3 else None) for n in range(7)]
  local = formats_on_the_spot.write_pool(name, records, folder, tmp_path)
  remote = f"gs://bucket/{local.rpartition('/')[2]}"
  bucket.pipe(remote, open(local, "rb").read())
  for image in ("a/1.png", "a/2.png"):
    bucket.pipe(f"gs://bucket/images/{image}", (folder / image).read_bytes())
  tables = []
  for data, images in ((local, str(folder)), (remote, "gs://bucket/images")):
    out = tmp_path / f"{len(tables)}.table"
    pool_check.check_pool([data], images, make_encoder(), 10_000, out)
    tables.append(read_table(out))
  assert tables[1].ok.all()
  for column in ("id", "hash", "image_hashes", "pixels", "source"):
    assert list(getattr(tables[0], column)) == list(getattr(tables[1], column))
  assert tables[0].record(3) == tables[1].record(3)
  assert fingerprint.fingerprint([local], str(folder)) == fingerprint.fingerprint(
    [remote], "gs://bucket/images"
  )


def test_what_is_not_there(bucket, tmp_path):
  with pytest.raises(InputError, match="does not exist"):
    pool_check.check_pool(
      ["gs://bucket/no.json"], None, make_encoder(), 100, tmp_path / "out"
    )
  assert not storage.is_folder("gs://bucket/none")
  bucket.pipe("gs://bucket/part/a.jsonl", b"{}")
  assert storage.is_remote(mixture.expand(["gs://bucket/part/*.jsonl"])[0].file)


def test_commas_in_paths(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("a,b.json", "c.json", "d", "e(x,y", "f,g"):
    (tmp_path / name).mkdir() if name == "f,g" else (tmp_path / name).touch()
  for text, wanted in (
    ("a,b.json", ["a,b.json"]), ("c.json,d", ["c.json", "d"]),
    ("c.json, a,b.json ,d", ["c.json", "a,b.json", "d"]),
    (" x.json , y.json,", ["x.json", "y.json"]), ("", []),
    ("e(x,y,c.json", ["e(x,y", "c.json"]), ("f,g,f,g", ["f,g", "f,g"]),
    ("{p,q}.json,z", ["{p,q}.json", "z"]),
    ("ai2d(a,b)/*.parquet,c.json", ["ai2d(a,b)/*.parquet", "c.json"]),
    ("gs://b/x,gs://b/y", ["gs://b/x", "gs://b/y"]),
  ):  # fmt: skip
    assert storage.split_paths(text) == wanted, text


def test_packed_files_and_folders_in_a_bucket(bucket, tmp_path):
  lines = "".join(json.dumps(make_record(n)) + "\n" for n in range(3)).encode()
  bucket.pipe("gs://bucket/set/sub/train.jsonl.gz", gzip.compress(lines))
  bucket.pipe("gs://bucket/set/sub/test.jsonl", lines)
  bucket.pipe("gs://bucket/set/.cache/train.jsonl", lines)
  out = tmp_path / "out"
  found = pool_check.check_pool(["gs://bucket/set"], None, make_encoder(), 9, out)
  assert found["rows"] == 3
  assert found["left_out_files"]["first"] == ["gs://bucket/set/sub/test.jsonl"]
  assert read_table(out).record(2).value == make_record(2)


class ClientOSError(OSError):
  """As of aiohttp, by which Google's client connects."""


def test_errors_of_a_cloud_client_name_the_path(bucket, monkeypatch):
  """Some of them are OSErrors that name a host alone."""
  errors = [ClientOSError(2, "Cannot connect to host"), RuntimeError("no access")]

  def fail(*_, **__):
    raise errors[0]

  monkeypatch.setattr(MemoryFileSystem, "exists", fail)
  for name in ("ClientOSError", "RuntimeError"):
    with pytest.raises(OSError, match=name) as caught:
      storage.is_file("gs://bucket/pool.json")
    assert type(caught.value) is OSError
    assert caught.value.filename == "gs://bucket/pool.json"
    errors.pop(0)
