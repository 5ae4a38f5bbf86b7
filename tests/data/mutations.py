"""Records and pool files as nobody would write them, from a seed."""

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.files import mixture
from mllm_selector_jax.data.formats import tf_example
from mllm_selector_jax.data.formats.array_record_file import open_writer
from mllm_selector_jax.data.images.decoding import decode_image
from mllm_selector_jax.data.images.pictures import read_picture
from mllm_selector_jax.data.pool.sources import make_finder
from mllm_selector_jax.data.tokens.dialogue import read_rounds
from mllm_selector_jax.types import InputError, RowError
from tests.data.formats_on_the_spot import IMAGE, TEXT, TURN, write_features

KINDS = (
  ".json", ".jsonl", ".jsonl.gz", ".parquet", ".arrow", ".tar", ".array_record", "tfds",
)  # fmt: skip


def _draw_images() -> list[bytes]:
  found = []
  for kind in ("PNG", "JPEG", "GIF"):
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), (200, 10, 10)).save(buffer, kind)
    found.append(buffer.getvalue())
  return [*found, b"", found[0][:40], b"GIF89a", b"not an image"]


IMAGES = _draw_images()

scalars = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(-(2**70), 2**70),
  st.floats(),
  st.text(max_size=8),
)
anything = st.recursive(
  scalars,
  lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=6,
)
words = st.one_of(
  st.sampled_from(["<image>\nwhat?", "two", "<image>", "", "</s>", "a\0b", "é😀"]),
  st.text(max_size=12),
)


def _turns(speaker: str, said: str, roles: tuple[str, ...]):
  turn = st.fixed_dictionaries(
    {
      speaker: st.one_of(st.sampled_from(roles), anything),
      said: st.one_of(words, words, anything),
    }
  )
  pair = st.tuples(
    *(
      st.fixed_dictionaries({speaker: st.just(role), said: words}) for role in roles[:2]
    )
  )
  return st.one_of(
    pair.map(list), pair.map(list), st.lists(turn, max_size=4),
    st.lists(anything, max_size=2), anything,
  )  # fmt: skip


records = st.one_of(
  st.fixed_dictionaries(
    {},
    optional={
      "id": scalars,
      "image": st.one_of(st.sampled_from(["a.png", "../a", "/a"]), anything),
      "conversations": _turns("from", "value", ("human", "gpt", "system")),
    },
  ),
  st.fixed_dictionaries(
    {"messages": _turns("role", "content", ("user", "assistant", "tool"))},
    optional={"images": st.one_of(st.just(["a.png"]), anything), "id": scalars},
  ),
  st.fixed_dictionaries(
    {"texts": _turns("user", "assistant", ("q", "a"))}, optional={"images": anything}
  ),
  anything,
)


def write_pool(kind: str, values: list, rng: random.Random, folder: Path) -> Path:
  """A well-formed file of these values as far as its format can hold them."""
  path = folder / (f"pool{kind}" if kind != "tfds" else "p-train.array_record")
  texts = [json.dumps(value).encode() for value in values]
  (folder / "a.png").write_bytes(IMAGES[0])
  if kind == ".json":
    path.write_bytes(b"[" + b", ".join(texts) + b"]")
  elif kind == ".jsonl":
    path.write_bytes(b"".join(text + b"\n" for text in texts))
  elif kind == ".jsonl.gz":
    path.write_bytes(gzip.compress(b"".join(text + b"\n" for text in texts), 1))
  elif kind == ".array_record":
    with open_writer(path) as writer:
      for text in texts:
        writer.write(text)
  elif kind == "tfds":
    _write_tfds(path, values, rng)
  elif kind == ".tar":
    _write_tar(path, texts, rng)
  else:
    _write_table(path, values, rng)
  return path


def _write_tar(path: Path, texts: list[bytes], rng: random.Random) -> None:
  style = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
  with tarfile.open(path, "w", format=style) as archive:
    for number, text in enumerate(texts):
      members = [("json", text)]
      members += [(rng.choice(("png", "jpg", "txt", "1.png")), rng.choice(IMAGES))]
      for suffix, data in members[rng.random() < 0.1 :]:
        name = f"{'long' * 40}/{number}" if rng.random() < 0.1 else f"{number}"
        info = tarfile.TarInfo(f"{name}.{suffix}")
        info.size = len(data)
        if rng.random() < 0.03:
          info.type, info.size, data = tarfile.SYMTYPE, 0, b""
        archive.addfile(info, io.BytesIO(data))


def _write_tfds(path: Path, values: list, rng: random.Random) -> None:
  sequence = {"sequence": {"feature": IMAGE}}, {"sequence": {"feature": TURN}}
  features = {"id": TEXT, "images": sequence[0], "conversations": sequence[1]}
  write_features(path.parent, features)
  with open_writer(path) as writer:
    for value in values:
      said = json.dumps(value).encode()
      found = {
        "id": [said[:9]],
        "images": rng.choices(IMAGES, k=rng.randint(0, 2)),
        "conversations/from": [b"human", b"gpt"][: rng.randint(1, 4)],
        "conversations/value": [b"<image>\nq", said][: rng.randint(1, 4)],
      }
      writer.write(tf_example.encode(found))


def _write_table(path: Path, values: list, rng: random.Random) -> None:
  rows = [value if isinstance(value, dict) else {"value": value} for value in values]
  columns = {}
  for key in dict.fromkeys(key for row in rows for key in row):
    cells = [row.get(key) for row in rows]
    try:
      columns[key] = pa.array(cells)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
      columns[key] = pa.array([json.dumps(cell) for cell in cells])
  kind = rng.randrange(3)
  picked = [rng.choice(IMAGES) for _ in rows]
  if kind == 0:
    columns["image"] = pa.array([{"bytes": data, "path": "x.png"} for data in picked])
  elif kind == 1:
    columns["images"] = pa.array([[{"bytes": data, "path": None}] for data in picked])
  columns["number"] = pa.array(range(len(rows)))
  table = pa.table(columns)
  if path.suffix == ".arrow":
    make = rng.choice((pa.ipc.new_stream, pa.ipc.new_file))
    with make(path, table.schema) as writer:
      writer.write_table(table, max_chunksize=rng.randint(1, 3))
    return
  try:
    pq.write_table(table, path, row_group_size=rng.randint(1, 3))
  except pa.ArrowException:  # an empty struct, which Parquet cannot hold
    pq.write_table(pa.table({"id": picked}), path)


def mutate(data: bytes, rng: random.Random) -> bytes:
  """Some bytes flipped, cut, doubled, zeroed or exchanged."""
  out = bytearray(data)
  for _ in range(rng.choice((1, 1, 1, 2, 5))):
    if not out:
      break
    start = rng.randrange(len(out))
    stop = min(len(out), start + rng.choice((1, 1, 4, 64, 512)))
    kind = rng.randrange(7)
    if kind == 0:
      out[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
      out[start] = rng.randrange(256)
    elif kind == 2:
      del out[start:]
    elif kind == 3:
      del out[start:stop]
    elif kind == 4:
      out[start:start] = out[start:stop]
    elif kind == 5:
      out[start:stop] = bytes(stop - start)
    else:
      out[start:stop] = rng.randbytes(stop - start)
  return bytes(out)


def read_all(path: Path) -> tuple[int, int] | str:
  """Usable rows and rows set aside, each read a second time at random; or the error.

  Any other exception than an `InputError` is a fault of the project.
  """
  usable = aside = 0
  find_source = make_finder("auto")
  try:
    for part in mixture.expand([str(path)]):
      file = formats.open_file(part.file)
      for record in file.records():
        if record.value is None:
          assert record.reason and record.detail, record
          aside += 1
          continue
        again = file.read(record.offset, record.length)
        # By their text: a float may be no number, which equals nothing.
        assert repr(again) == repr(record), (record, again)
        file.text(record.offset, record.length)
        find_source(record, None, part.file)
        try:
          content = record_schemas.read_content(record)
          read_rounds(content.conversations)
          for picture in content.pictures:
            decode_image(read_picture(picture, str(path.parent)), 10_000)
          usable += 1
        except RowError:
          aside += 1
  except InputError as error:
    assert 0 < len(str(error)) < 2000
    return str(error)
  return usable, aside
