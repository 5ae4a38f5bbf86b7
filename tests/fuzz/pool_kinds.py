"""Pool files of every format, whole pools, mixtures, and images of every format."""

import io
import json
import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.files import mixture
from mllm_selector_jax.data.images.decoding import decode_image, measure_image
from mllm_selector_jax.data.pool.pool_check import check_pool
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import InputError, Record
from tests.data import mutations
from tests.data.record_schemas.test_record_schemas import FORMS, ROLES
from tests.fixed_images import fixed_images
from tests.fuzz.kinds import ASIDE, TAKEN, Kind, write_json
from tests.models import tiny

MAX_PIXELS = 1_000_000
IMAGE_FORMATS = {
  "png": ("PNG", {}),
  "jpg": ("JPEG", {"progressive": True}),
  "gif": ("GIF", {}),
  "bmp": ("BMP", {}),
  "tif": ("TIFF", {"compression": "tiff_lzw"}),
  "webp": ("WEBP", {"lossless": True}),
}
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16", "LA")
SYSTEM = {"system": "Be brief.", "weight": 0, "history": [["a", "b"]], "source": "x"}
GROUNDED = {
  "images": ["a.png"],
  "messages": [
    {"role": "user", "content": "<image>Where is <ref-object>?"},
    {"role": "assistant", "content": "At <bbox>."},
  ],
  "objects": {"ref": ["a dog"], "bbox": [[1, 1, 3, 2]]},
}
TEXT_ONLY = {"messages": [{"role": "user", "content": "hi"}, ROLES[1]]}
RECORDS = [*FORMS.values(), {**SYSTEM, **FORMS["messages"]}, GROUNDED, TEXT_ONLY]


def draw_image(number: int) -> Image.Image:
  """A small picture, whose mode depends on the number."""
  pixels = np.random.default_rng(number).integers(0, 255, (9, 13, 3), np.uint8)
  image = Image.fromarray(pixels)
  mode = MODES[number % len(MODES)]
  if mode == "I;16":
    return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
  return image.convert(mode)


def encode_image(number: int, suffix: str) -> bytes:
  """A file of this format, of the first mode from `number` on that it can hold."""
  form, options = IMAGE_FORMATS[suffix]
  for mode in range(number, number + len(MODES)):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    try:
      draw_image(mode).save(buffer, form, exif=exif.tobytes(), **options)
    except (OSError, ValueError, KeyError):
      continue
    return buffer.getvalue()
  raise AssertionError(suffix)


def make_image_kind(suffix: str) -> Kind:
  def write(folder: Path, number: int) -> None:
    (folder / f"a.{suffix}").write_bytes(encode_image(number, suffix))

  def read(folder: Path) -> str:
    data = (folder / f"a.{suffix}").read_bytes()
    # Both read the header, and agree on it where both can.
    for rotate in (False, True):
      size = measure_image(data, MAX_PIXELS, rotate=rotate)
      assert size[0] * size[1] <= MAX_PIXELS
    assert decode_image(data, MAX_PIXELS, rotate=True).size == size
    return TAKEN

  share = 1 if suffix == "png" else 4  # whose larger examples take longer
  return Kind(f"image {suffix}", write, read, examples=len(MODES), share=share)


def make_pool_kind(suffix: str) -> Kind:
  name = f"pool{suffix}" if suffix != "tfds" else "p-train.array_record"

  def write(folder: Path, number: int) -> None:
    records = [{"id": f"r{n}", **RECORDS[n]} for n in (3 * number, 3 * number + 1)]
    if suffix in (".parquet", ".arrow"):
      records = [{key: value for key, value in records[0].items() if key != "image"}]
    path = mutations.write_pool(suffix, records * 2, random.Random(number), folder)
    assert path.name == name

  def read(folder: Path) -> str:
    path = folder / name
    found = mutations.read_all(path)
    if isinstance(found, str):
      raise InputError(found)
    counted = formats.open_file(str(path)).count()
    assert sum(found) == counted, (found, counted)
    return TAKEN if found[0] or not found[1] else ASIDE

  share = {".json": 6, ".jsonl": 6, ".jsonl.gz": 2, ".tar": 3}.get(suffix, 2)
  return Kind(f"pool {suffix}", write, read, len(RECORDS) // 3, share, keep=("a.png",))


def write_records(folder: Path, number: int) -> None:
  write_json(folder / "record.json", {"id": number, **RECORDS[number]})


def read_record(folder: Path) -> str:
  """A record as a table or another program gives it, without a file around it."""
  try:
    value = json.loads((folder / "record.json").read_bytes())
  except (ValueError, RecursionError) as error:
    raise InputError("not JSON") from error
  if not isinstance(value, dict):
    raise InputError("no record")
  content = record_schemas.read_content(Record(0, 0, value))
  mutations.read_rounds(content.conversations)
  json.dumps(content.conversations)
  return TAKEN


def write_mixture(folder: Path, number: int) -> None:
  write_json(folder / "a.json", [{"id": n, **FORMS["llava"]} for n in range(4)])
  takes = ("all", "first:2", "end:50%", "random:1", '"random:12.5%"')
  lines = [
    f"  - json_path: '{name}'\n    sampling_strategy: {take}\n"
    for name, take in zip(
      ("a.json", "[a]*.json", "{a,a}.json"), takes[number:], strict=False
    )
  ]
  (folder / "mix.yaml").write_text("datasets:\n" + "".join(lines) + "other: {a: [1]}\n")


def read_mixture(folder: Path) -> str:
  parts = mixture.expand([str(folder / "mix.yaml")])
  for part in parts:
    rows = mixture.choose(part, lambda: 4, 0)
    assert rows is None or list(rows) == sorted(set(rows)), part
  return TAKEN


class WholePools:
  """The check of a whole pool with its images, as the command `check` does it."""

  def __init__(self):
    from mllm_selector_jax.data.tokens.conversation import make_encoder

    self._encoder = make_encoder(
      "vicuna_v1", tiny.make_tokenizer(), fixed_images(4, 16), 256
    )

  def check(self, folder: Path) -> tuple[dict, bool]:
    """The summary of the pool, and whether a row can be used."""
    out = folder / "table.parquet"
    try:
      data, images = [str(folder / "pool.json")], str(folder / "images")
      summary = check_pool(data, images, self._encoder, MAX_PIXELS, out, workers=1)
      table = read_table(out)
      counted = formats.open_file(data[0]).count()
      assert len(table) == summary["rows"] == counted, (len(table), summary, counted)
      assert summary["ok"] == int(table.ok.sum())
      return summary, bool(table.ok.any())
    finally:
      for path in folder.glob("*table*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_whole_pool(folder: Path, number: int) -> None:
  records = [{"id": n, **record} for n, record in enumerate(RECORDS)]
  write_json(folder / "pool.json", records[number::4])
  (folder / "images").mkdir()
  (folder / "images" / "a.png").write_bytes(encode_image(0, "png"))


def list_kinds() -> list[Kind]:
  whole: list[WholePools] = []

  def read_whole(folder: Path) -> str:
    if not whole:
      whole.append(WholePools())
    return TAKEN if whole[0].check(folder)[1] else ASIDE

  return [
    *map(make_pool_kind, mutations.KINDS),
    *map(make_image_kind, IMAGE_FORMATS),
    Kind("record", write_records, read_record, len(RECORDS), share=20),
    Kind("mixture", write_mixture, read_mixture, 3, share=6, keep=(".json",)),
    Kind("whole pool", write_whole_pool, read_whole, 4, share=0.3),
  ]
