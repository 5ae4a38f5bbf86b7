"""Pools in a bucket: a real file system in memory stands where the cloud's would."""

import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from mllm_selector_jax.data import check, fingerprint, mixture, storage
from mllm_selector_jax.data.table import read_table
from mllm_selector_jax.types import InputError
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import (
  OPTIONS,
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
    check.check_pool([data], images, make_encoder(), OPTIONS, 10_000, out)
    tables.append(read_table(out))
  assert tables[1].ok.all()
  for column in ("id", "hash", "image_hash", "pixels", "source"):
    assert list(getattr(tables[0], column)) == list(getattr(tables[1], column))
  assert tables[0].record(3) == tables[1].record(3)
  assert fingerprint.fingerprint([local], str(folder)) == fingerprint.fingerprint(
    [remote], "gs://bucket/images"
  )


def test_what_is_not_there(bucket, tmp_path):
  with pytest.raises(InputError, match="is not there"):
    check.check_pool(
      ["gs://bucket/no.json"], None, make_encoder(), OPTIONS, 100, tmp_path / "out"
    )
  assert not storage.is_folder("gs://bucket/none")
  bucket.pipe("gs://bucket/part/a.jsonl", b"{}")
  assert storage.is_remote(mixture.expand(["gs://bucket/part/*.jsonl"])[0].file)
