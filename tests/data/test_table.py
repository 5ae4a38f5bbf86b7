"""The checked pool on disk and back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.pool import pool_table
from mllm_selector_jax.types import InputError, RunError


def make_line(row, **changes):
  line = pool_table.Line(
    row, f"id {row}", f"{row:016x}" * 2, "source", ("a/1.png",), ("f" * 64,),
    ("e" * 32,), (7, 9), 2, 90 + row, 7, 5, 1, 0, (3, 8), (0, 1), (0, 0),
    (2**64 - 1, 7), (0, 2), "ok", None, None, False, "pool.json", 10 * row, 9,
    2**64 - 1 - row,
  )  # fmt: skip
  return line._replace(**changes)


def write(path, lines, group=100):
  with pool_table.open_writer(path) as writer:
    for start in range(0, len(lines), group):
      writer.write_table(pool_table.make_table(lines[start : start + group]))


LINES = [
  make_line(0),
  make_line(
    1,
    images=(),
    image_hashes=(),
    pixels=(),
    sizes=(),
    image_tokens=0,
    tiles=0,
    prefix_tokens=(),
    prefix_tiles=(),
    prefix_taps=(),
    prefix_keys=(),
    prefix_asked=(),
    source="text",
  ),
  make_line(2, status="aside", reason="malformed", detail="x", hash=None, tokens=0),
  make_line(
    3,
    truncated=True,
    id='é "\n',
    images=("b", "c"),
    image_hashes=("1", "2"),
    pixels=("3", "4"),
    sizes=(1, 2, 3, 4),
    tiles=5,
    taps=6,
  ),
]


def read_row(pool, row):
  """All columns of one row."""
  cells = (getattr(pool, name)[row] for name in pool_table.Line._fields)
  return pool_table.Line(*(c.item() if isinstance(c, np.generic) else c for c in cells))


@pytest.mark.parametrize("group", [1, 3, 100])
def test_round_trip(tmp_path, group):
  write(tmp_path / "t.parquet", LINES, group)
  pool = pool_table.read_table(tmp_path / "t.parquet")
  assert len(pool) == 4
  for row, line in enumerate(LINES):
    assert read_row(pool, row) == line
  assert pool.ok.tolist() == [True, True, False, True]
  assert pool.has_image.tolist() == [True, False, True, True]
  for name in ("ok", "has_image", "truncated"):
    assert getattr(pool, name).dtype == bool
  assert pool.image_sizes(3) == [(1, 2), (3, 4)] and pool.image_sizes(1) == []
  assert pool.prefixes.take(np.array([3, 1, 0]), 1).tokens.tolist() == [8, 8]
  for name in ("row", "tokens", "supervised", "turns", "tiles", "offset", "length"):
    assert np.issubdtype(getattr(pool, name).dtype, np.integer)
  assert pool.answer.dtype == np.uint64


def test_the_columns_are_named_as_documented(tmp_path):
  write(tmp_path / "t.parquet", LINES)
  assert (
    pq.read_schema(tmp_path / "t.parquet").names
    == (
      "row id hash source images image_hashes pixels sizes turns tokens supervised"
      " image_tokens tiles taps prefix_tokens prefix_tiles prefix_taps prefix_keys"
      " prefix_asked status reason detail truncated file offset length answer"
    ).split()
  )


def test_a_table_of_an_earlier_version_knows_no_answers(tmp_path):
  write(tmp_path / "t.parquet", LINES)
  old = pq.read_table(tmp_path / "t.parquet").drop_columns(["answer"])
  pq.write_table(old, tmp_path / "old.parquet")
  pool = pool_table.read_table(tmp_path / "old.parquet")
  assert pool.answer.tolist() == [0] * 4 and pool.answer.dtype == np.uint64
  assert read_row(pool, 1) == LINES[1]._replace(answer=0)


def test_a_table_of_one_image_per_row_is_read(tmp_path):
  lines = [line for line in LINES if len(line.images) < 2]
  write(tmp_path / "t.parquet", lines)
  old = pq.read_table(tmp_path / "t.parquet")
  for name, earlier in (("images", "image"), ("image_hashes", "image_hash")):
    texts = pa.array([row[0] if row else None for row in old[name].to_pylist()])
    old = old.drop_columns([name]).append_column(earlier, texts)
  texts = pa.array([row[0] if row else None for row in old["pixels"].to_pylist()])
  names = [name for name in old.column_names if name.startswith("prefix_")]
  names += ["pixels", "sizes", "image_tokens", "tiles", "taps"]
  old = old.drop_columns(names).append_column("pixels", texts)
  pq.write_table(old, tmp_path / "old.parquet")
  pool = pool_table.read_table(tmp_path / "old.parquet")
  assert pool.has_image.tolist() == [True, False, True]
  for name in ("images", "image_hashes", "pixels"):
    found = [getattr(pool, name)[row] for row in range(3)]
    assert found == [getattr(line, name) for line in lines]
  assert pool.tokens.tolist() == [line.tokens for line in lines]
  for name in ("tiles", "prefixes", "sizes"):
    with pytest.raises(InputError, match="earlier version and lacks the column"):
      getattr(pool, name)


def test_an_error_leaves_the_old_file(tmp_path):
  write(tmp_path / "t.parquet", LINES)
  old = (tmp_path / "t.parquet").read_bytes()
  with (
    pytest.raises(ZeroDivisionError),
    pool_table.open_writer(tmp_path / "t.parquet") as w,
  ):
    w.write_table(pool_table.make_table(LINES[:1]))
    _ = 1 / 0
  assert (tmp_path / "t.parquet").read_bytes() == old
  assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_what_is_not_a_table(tmp_path):
  with pytest.raises(InputError, match="not there"):
    pool_table.read_table(tmp_path / "none.parquet")
  (tmp_path / "text.parquet").write_text("hello")
  with pytest.raises(InputError, match="whole Parquet"):
    pool_table.read_table(tmp_path / "text.parquet")
  pq.write_table(pa.table({"row": [1]}), tmp_path / "other.parquet")
  with pytest.raises(InputError, match="lacks the columns detail"):
    pool_table.read_table(tmp_path / "other.parquet")


def test_a_flipped_byte_is_found(tmp_path):
  lines = [make_line(row, tokens=row * 7919 % 1000) for row in range(2000)]
  write(tmp_path / "t.parquet", lines)
  data = bytearray((tmp_path / "t.parquet").read_bytes())
  group = pq.read_metadata(tmp_path / "t.parquet").row_group(0)
  place = pool_table.Line._fields.index("tokens")
  column = group.column(place)
  start = column.dictionary_page_offset or column.data_page_offset
  data[start + column.total_compressed_size // 2] ^= 0xFF
  (tmp_path / "t.parquet").write_bytes(bytes(data))
  with pytest.raises(RunError, match="damaged"):
    _ = pool_table.read_table(tmp_path / "t.parquet").tokens


def test_the_record_is_read_from_its_file(tmp_path):
  path = tmp_path / "pool.json"
  path.write_text('[{"a": 1}, {"b": "é"}]')
  write(
    tmp_path / "t.parquet",
    [make_line(0, file=str(path), offset=11, length=len('{"b": "é"}'.encode()))],
  )
  pool = pool_table.read_table(tmp_path / "t.parquet")
  assert pool.record(0).value == {"b": "é"}
  path.write_text('[{"a": 1},  {"b": "é"}]')
  with pytest.raises(InputError, match="changed"):
    pool.record(0)
