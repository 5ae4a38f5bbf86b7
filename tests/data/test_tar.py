"""Tars as they are published: what is one sample, and what is named."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.formats.tar_file import TarFile
from mllm_selector_jax.types import InputError
from tests.data.pools_on_the_spot import make_record, talk


def draw(seed: int) -> bytes:
  buffer = io.BytesIO()
  noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
  Image.fromarray(noise).save(buffer, "PNG")
  return buffer.getvalue()


def pack(members: dict, style=tarfile.PAX_FORMAT) -> bytes:
  """A tar of values (as JSON) and bytes, by name."""
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
    for name, data in members.items():
      data = data if isinstance(data, bytes) else json.dumps(data).encode()
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  return buffer.getvalue()


def make_samples(key="{}", suffix="json", image="png", count=3) -> dict:
  members = {}
  for n in range(count):
    members[f"{key.format(n)}.{image}"] = draw(n)
    members[f"{key.format(n)}.{suffix}"] = make_record(n)
  return members


def read(tmp_path, data: bytes):
  """The records, each found again at random."""
  path = tmp_path / "pool.bin"
  path.write_bytes(data)
  file = formats.open_file(str(path))
  assert type(file) is TarFile
  found = list(file.records())
  for record in found:
    if record.value is not None:
      assert file.read(record.offset, record.length) == record
      assert json.loads(file.text(record.offset, record.length)) == record.value
  return found


@pytest.mark.parametrize(
  ("key", "suffix", "image"),
  [
    ("{:05d}", "json", "png"), ("{}", "JSON", "PNG"), ("img.v1.{}", "json", "png"),
    ("a/b.c/{}", "json", "jpeg"), ("{}", "conversations.json", "png"),
    ("{}", "conversations.json", "image.png"), ("{}", "json", "0.png"),
    ("é " + "long" * 60 + "/{}", "json", "png"), ("2024.01.{}", "json", "Jpg"),
  ],
)  # fmt: skip
@pytest.mark.parametrize(
  "style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
)
@pytest.mark.parametrize("order", [1, -1])
def test_what_is_one_sample(tmp_path, key, suffix, image, style, order):
  if style == tarfile.USTAR_FORMAT and len(key) > 99:
    pytest.skip("USTAR has no such names")
  members = make_samples(key, suffix, image)
  items = list(members.items())
  pairs = [dict(items[n : n + 2][::order]) for n in range(0, 6, 2)]
  found = read(tmp_path, pack({k: v for pair in pairs for k, v in pair.items()}, style))
  assert [record.value for record in found] == [make_record(n) for n in range(3)]
  assert [[p.data for p in record.pictures] for record in found] == [
    [draw(n)] for n in range(3)
  ]
  assert len({record.id for record in found}) == 3


def test_a_bare_list_of_turns_is_a_conversation(tmp_path):
  turns = [talk("<image>\nwhat?", "two"), talk("why?", "so")]
  found = read(
    tmp_path, pack({"0.png": draw(0), "0.json": turns[0], "1.json": turns[1]})
  )
  assert [record.value for record in found] == [{"conversations": t} for t in turns]
  assert [len(record.pictures) for record in found] == [1, 0]


def test_which_members_are_images(tmp_path):
  several = {"0.0.png": draw(0), "0.1.png": draw(1), "0.json": {}}
  masked = {"1.png": draw(2), "1.mask.png": draw(3), "1.json": {}, "1.seg.PNG": draw(4)}
  counted = {"2.png": draw(5), "2.1.png": draw(6), "2.txt": b"x", "2.json": {}}
  found = read(tmp_path, pack(several | masked | counted))
  assert [[p.data for p in record.pictures] for record in found] == [
    [draw(0), draw(1)], [draw(2)], [draw(5), draw(6)]
  ]  # fmt: skip


def test_joined_tars_are_read_on(tmp_path):
  one, two = pack(make_samples()), pack(make_samples("b{}"), tarfile.GNU_FORMAT)
  for data in (one + two, one + bytes(1024) + two + two, one[:-4096] + two):
    found = read(tmp_path, data)
    assert [r.value for r in found[:6]] == [make_record(n) for n in (0, 1, 2, 0, 1, 2)]


def test_a_damaged_header_is_no_end(tmp_path):
  data = bytearray(pack(make_samples()))
  data[2048 + 150] ^= 1  # of the second sample's image
  with pytest.raises(InputError, match="has a damaged header"):
    read(tmp_path, bytes(data[:2048] + data[2048:]))
  whole = pack(make_samples())
  with pytest.raises(InputError, match=r"damaged header|broken"):
    read(tmp_path, whole + b"\1" * 512)
  with pytest.raises(InputError, match=r"cut off|broken there"):
    read(tmp_path, whole[: 2048 + 300])


def test_a_packed_tar(tmp_path):
  found = read(tmp_path, gzip.compress(pack(make_samples())))
  assert [record.value for record in found] == [make_record(n) for n in range(3)]


def test_what_is_no_pool_is_named(tmp_path):
  lines = {"images/0.png": draw(0), "ann.jsonl": b'{"image": "images/0.png"}\n'}
  with pytest.raises(InputError, match=r"of ann\.jsonl, whose rows name them.*Unpack"):
    read(tmp_path, pack(lines))
  with pytest.raises(InputError, match="no sample"):
    read(tmp_path, pack({"._0.json": {}}))
  downloaded = {"caption": "a", "url": "u", "key": "0", "status": "success"}
  records = [make_record(0), make_record(1)]
  found = read(
    tmp_path, pack({"0.png": draw(0), "0.json": downloaded, "all.json": records})
  )
  assert [r.reason for r in found] == ["malformed"] * 2
  assert "img2dataset" in found[0].detail and "an object, not a list" in found[1].detail


def test_samples_that_do_not_stand_together_are_named(tmp_path):
  members = make_samples()
  data = pack(dict(sorted(members.items(), key=lambda item: item[0][-4:])))
  found = read(tmp_path, data)
  assert len(found) == 6 and {r.reason for r in found} == {"malformed"}
  assert all("follow one another" in record.detail for record in found)
