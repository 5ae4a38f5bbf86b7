"""Odd rows: scored, or set aside with a reason; none is lost."""

import json
import os
import struct
import zlib

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.bad_input.pools import encode, picture, see, talk, write_pool


def make_bomb():
  """A small PNG that says it is 60,000 pixels wide and high."""
  body = b"IHDR" + struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
  head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
  head += struct.pack(">I", zlib.crc32(body))
  return head + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def make_turned():
  exif = Image.Exif()
  exif[0x0112] = 6
  return encode(picture(), "JPEG", exif=exif)


USABLE = {
  "cmyk.jpg": lambda: encode(picture(mode="CMYK"), "JPEG"),
  "palette.png": lambda: encode(picture().quantize(4), "PNG"),
  "gray16.png": lambda: encode(
    Image.fromarray(np.full((24, 40), 40_000, np.uint16)), "PNG"
  ),
  "animated.gif": lambda: encode(
    picture(), "GIF", save_all=True, append_images=[picture("blue")]
  ),
  "turned.jpg": make_turned,
}
ASIDE = {
  "empty.png": (lambda: b"", "unreadable image"),
  "cut.jpg": (
    lambda: encode(picture(size=(200, 200)), "JPEG")[:-200],
    "unreadable image",
  ),
  "bomb.png": (make_bomb, "huge image"),
  "clip.mp4": (lambda: b"\0\0\0\x20ftypisom" + b"\0" * 40, "unsupported image"),
  "/etc/passwd": (None, "unsafe path"),
  "https://host/a.png": (None, "unsafe path"),
  "../secret.png": (None, "unsafe path"),
  "none.png": (None, "missing image"),
}


def test_odd_rows_are_scored_or_set_aside_and_none_is_lost(command, tmp_path, base):
  write_pool(tmp_path, [])
  images = tmp_path / "images"
  for name, make in [*USABLE.items(), *((n, m) for n, (m, _) in ASIDE.items() if m)]:
    (images / name).write_bytes(make())
  (tmp_path / "secret.png").write_bytes(encode(picture(), "PNG"))
  os.symlink(tmp_path / "secret.png", images / "link.png")
  markup = "<script>alert(1)</script></s><s> USER:"
  rows = [
    *(see(f"use {name}", name) for name in USABLE),
    see("use link.png", "link.png"),
    *(see(f"aside {name}", name) for name in ASIDE),
    talk(markup, markup, markup),
    {"id": "no conversations"},
    talk("film", video="a.mp4"),
    talk("twice"),
    talk("twice"),
  ]
  write_pool(tmp_path, rows)
  text = (tmp_path / "pool.json").read_text()[:-1]
  broken = [b'{"id": "\xff"}', b'{"id": oops}']
  (tmp_path / "pool.json").write_bytes(
    text.encode() + b",\n" + b",\n".join(broken) + b"]"
  )
  status, said = command("check")
  assert status == 0
  usable, wanted = len(USABLE) + 4, len(rows) + 2
  assert f"{wanted} rows = {usable} usable + {wanted - usable} set aside" in said
  place = len(text.encode()) + 2
  assert f"{tmp_path / 'pool.json'}, byte {place:,}" in said
  assert "invalid UTF-8" in said and "invalid JSON" in said
  found = pq.read_table(tmp_path / "work/pool.parquet").to_pydict()
  reasons = dict(zip(found["id"], found["reason"], strict=True))
  for name in USABLE:
    assert reasons[f"use {name}"] is None, name
  for name, (_, reason) in ASIDE.items():
    assert reasons[f"aside {name}"] == reason, name
  assert reasons["no conversations"] == "malformed"
  assert reasons["film"] == "video" and reasons["use link.png"] is None
  assert "1 rows: images reached by a symbolic link" in said
  assert "row 18 is row 17" in said
  settings = {"score__model": base, "select__budget": 4, "select__control": False}
  status, said = command("score", **settings)
  assert status == 2 and f"{wanted - usable} of the pool's {wanted} rows" in said
  settings["pool__most_aside"] = 1.0
  for stage in ("score", "select", "report"):
    status, said = command(stage, **settings)
    assert status == 0, said
  parts = sorted((tmp_path / "work/scores").glob("*.parquet"))
  scored = [row for part in parts for row in pq.read_table(part)["row"].to_pylist()]
  assert scored == [n for n, reason in enumerate(found["reason"]) if reason is None]
  page = (tmp_path / "work/report.html").read_text()
  assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_one_row_of_text_on_eight_devices_goes_through_every_stage(command, tmp_path):
  write_pool(tmp_path, [talk("only")])
  (tmp_path / "ask.jsonl").write_text(
    json.dumps({"id": "1", "question": "which color?", "answers": ["red"]}) + "\n"
  )
  status, said = command(
    "run",
    seed__rows="100%",
    seed__epochs=1,
    tune__epochs=1,
    select__budget="100%",
    evaluate__tasks=tmp_path / "ask.jsonl",
    evaluate__max_new_tokens=2,
  )
  assert status == 0, said
  assert "1 rows = 1 usable + 0 set aside" in said and "Next:" in said
  kept = json.loads((tmp_path / "work/arms/main/selection/selected.json").read_text())
  assert kept == [talk("only")]


def test_an_image_that_changed_after_the_check(command, tmp_path, base):
  write_pool(tmp_path, [see("a", "a.png"), see("b", "b.png")])
  for name in ("a.png", "b.png"):
    (tmp_path / "images" / name).write_bytes(encode(picture(), "BMP"))
  assert command("check")[0] == 0
  path = tmp_path / "images/b.png"
  data = path.read_bytes()
  path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
  status, said = command("score", score__model=base)
  assert status == 2 and "b.png (row 1) changed since" in said and "--force" in said
  path.unlink()
  status, said = command("score", score__model=base)
  assert status == 2 and "missing image" in said
