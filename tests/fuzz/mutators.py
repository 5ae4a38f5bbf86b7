"""Changes a file by its own grammar, or by its bytes, from a seed.

`MUTATORS` maps a suffix to the function that changes files of it. Each takes the bytes
of a sound file and a random generator, and returns other bytes.
"""

import gzip
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

from tests.data.mutations import mutate

Mutator = Callable[[bytes, random.Random], bytes]

TEXTS = (
  "", " ", "\n", "\0", "a\0b", "<image>", "<image>\n<image>", "<video>", "</s>", "<s>",
  "é", "😀", "\ud800", "\u202e", "\ufeff", "A" * 5000, "../../etc/passwd",
  "/etc/passwd", "file:///etc/passwd", "http://localhost:9/a.png", "gs://no/a.png",
  "data:image/png;base64,iVBORw0KGgo=", "C:\\a.png", "<script>alert(1)</script>",
  "{{ 7 * 7 }}", "${HOME}", "~", "*", "?", "[", "{a,b}", "null", "nan", "-1", "1e999",
  "0x10", "1_000", "true", "all", "first:5", "random:0%", "id", "=cmd|' /C calc'!A0",
)  # fmt: skip
NUMBERS = (
  0, 1, -1, 2, 3, 7, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1,
  2**63, -(2**63) - 1, 10**30, 0.0, -0.0, 0.5, 1e-320, 1e308, 1.0000001,
  float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
WORDS = (
  "for", "if", "endif", "endfor", "set", "macro", "generation", "messages", "content",
  "role", "raise_exception", "loop", "range", "namespace", "tojson", "{{", "}}", "{%",
  "%}", "{#", "datasets", "json_path", "sampling_strategy", "&a", "*a",
  "!!python/name:", "!!binary", "<<", ": ", "- ", "\t", ",", '"', "'", "\\", "\r",
  "\r\n", "(", ")", "[", "]", "**", "10", "999999999", "%", "|", ".", "__class__",
  "import", "id", "row", "hash",
)  # fmt: skip
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def draw_value(rng: random.Random) -> Any:
  """A value that a field of JSON seldom has."""
  kind = rng.randrange(9)
  if kind < 3:
    return rng.choice(TEXTS)
  if kind < 6:
    return rng.choice(NUMBERS)
  if kind == 6:
    return rng.choice((None, True, False))
  if kind == 7:
    return [draw_value(rng) for _ in range(rng.randrange(3))]
  return {rng.choice(TEXTS): draw_value(rng) for _ in range(rng.randrange(3))}


def mutate_tree(value: Any, rng: random.Random) -> Any:
  """A JSON value of which one part is changed, left out, doubled or exchanged."""
  places: list[tuple[Any, Any]] = []  # containers, and the keys or indices in them
  left = [value] if isinstance(value, dict | list) else []
  while left:
    item = left.pop()
    children = item.items() if isinstance(item, dict) else enumerate(item)
    for key, child in list(children):
      places.append((item, key))
      if isinstance(child, dict | list):
        left.append(child)
  if not places or rng.random() < 0.01:
    return draw_value(rng)
  # Parts near the root are few, and matter as much as the many leaves.
  place = min(rng.randrange(len(places)), rng.randrange(len(places)))
  holder, key = places[place]
  kind = rng.randrange(10)
  old = holder[key]
  if kind == 0:
    del holder[key]
  elif kind == 1:
    holder[key] = [old] if rng.random() < 0.5 else {rng.choice(TEXTS): old}
  elif kind == 2:
    other, name = rng.choice(places)
    holder[key] = other[name] if not _holds(other[name], holder) else draw_value(rng)
  elif kind == 3 and isinstance(holder, dict):
    holder[rng.choice((*TEXTS, f"{key}_", str(key).upper()))] = holder.pop(key)
  elif kind == 3 and isinstance(holder, list):
    holder.insert(rng.randrange(len(holder) + 1), old)
  elif kind == 4 and isinstance(old, str):
    place = rng.randrange(len(old) + 1)
    holder[key] = old[:place] + rng.choice(TEXTS) + old[place:]
  elif kind == 4 and isinstance(old, int | float):
    holder[key] = old * rng.choice((-1, 2, 10, 0.5)) + rng.choice((0, 1, -1))
  elif kind == 5 and isinstance(old, list | str) and len(old) > 1:
    holder[key] = old[: rng.randrange(len(old))]
  elif kind == 6:
    depth = rng.choice((3, 50, 990, 3000))
    holder[key] = _Nested(depth)
  else:
    holder[key] = draw_value(rng)
  return value


class _Nested:
  """Stands for lists in lists, which `json` could not write."""

  def __init__(self, depth: int):
    self.depth = depth


def _holds(value: Any, holder: Any) -> bool:
  """Whether a value is or holds a container, so that it may not be put into it."""
  left = [value]
  while left:
    item = left.pop()
    if item is holder:
      return True
    if isinstance(item, dict | list):
      left.extend(item.values() if isinstance(item, dict) else item)
  return False


def write_tree(value: Any, rng: random.Random) -> bytes:
  """Writes a value as JSON, which may hold NaN, lone surrogates and deep nesting."""
  depths: list[int] = []

  def name_depth(item: Any) -> str:
    depths.append(item.depth)
    return f"\ue010{len(depths) - 1}\ue010"

  try:
    text = json.dumps(value, default=name_depth, ensure_ascii=rng.random() < 0.5)
  except (RecursionError, ValueError):
    return b"[" * 3000
  for number, depth in enumerate(depths):
    nested = "[" * depth + "]" * depth
    for mark in (f'"\ue010{number}\ue010"', f'"\\ue010{number}\\ue010"'):
      text = text.replace(mark, nested)
  return text.encode("utf-8", "surrogatepass")


def mutate_json(data: bytes, rng: random.Random) -> bytes:
  """One to three changes of a JSON value, or of one line of JSONL."""
  lines = data.split(b"\n") if data[:1] == b"{" and b"}\n{" in data else [data]
  place = rng.randrange(len(lines))
  try:
    value = json.loads(lines[place])
  except (ValueError, RecursionError):
    return mutate(data, rng)
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    value = mutate_tree(value, rng)
    if not isinstance(value, dict | list):
      break
  lines[place] = write_tree(value, rng)
  return b"\n".join(lines)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
  """Some words left out, doubled, exchanged or put in."""
  tokens = _TOKEN.findall(data.decode("utf-8", "replace")) or [""]
  for _ in range(rng.choice((1, 1, 2, 4))):
    place = rng.randrange(len(tokens))
    kind = rng.randrange(6)
    if kind == 0 and len(tokens) > 1:
      del tokens[place : place + rng.choice((1, 1, 3, 10))]
      tokens = tokens or [""]
    elif kind == 1:
      tokens[place:place] = tokens[place : place + rng.choice((1, 5, 20))]
    elif kind == 2:
      other = rng.randrange(len(tokens))
      tokens[place], tokens[other] = tokens[other], tokens[place]
    elif kind == 3:
      tokens[place] = str(rng.choice(NUMBERS))
    else:
      tokens.insert(place, rng.choice(WORDS if kind == 4 else TEXTS))
  return "".join(tokens).encode("utf-8", "surrogatepass")


def mutate_png(data: bytes, rng: random.Random) -> bytes:
  """A chunk of a PNG changed, left out or doubled, with the right checksums."""
  chunks, place = [], 8
  while place + 12 <= len(data):
    (size,) = struct.unpack_from(">I", data, place)
    body = data[place + 8 : place + 8 + size]
    chunks.append([data[place + 4 : place + 8], body])
    place += 12 + size
  if not chunks:
    return mutate(data, rng)
  index = rng.randrange(len(chunks))
  name, body = chunks[index]
  kind = rng.randrange(6)
  if kind == 0:
    del chunks[index]
  elif kind == 1:
    chunks.insert(rng.randrange(len(chunks) + 1), [name, body])
  elif kind == 2:
    fields = bytearray(chunks[0][1].ljust(13, b"\0"))
    if rng.random() < 0.5:
      struct.pack_into(">I", fields, rng.choice((0, 4)), _draw_uint(rng))
    else:
      fields[rng.randrange(len(fields))] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    chunks[0][1] = bytes(fields)
  elif kind == 3:
    raw = bytes(rng.choice((0, 1, 255))) * rng.choice((1, 1000, 1 << 20))
    chunks[index] = [rng.choice((b"IDAT", b"zTXt", b"iCCP")), b"a\0\0" + _deflate(raw)]
  elif kind == 4:
    chunks[index][1] = mutate(body, rng)
  else:
    kinds = (b"tRNS", b"PLTE", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"IEND")
    chunks.insert(index, [rng.choice(kinds), rng.randbytes(rng.choice((0, 1, 13, 26)))])
  out = [data[:8]]
  for name, body in chunks:
    head = struct.pack(">I", len(body)) + name + body
    out.append(head + struct.pack(">I", zlib.crc32(name + body)))
  return b"".join(out)


def _deflate(raw: bytes) -> bytes:
  return zlib.compress(raw, 1)


def _draw_uint(rng: random.Random) -> int:
  return rng.choice((0, 1, 2, 9, 255, 65_535, 20_000, 100_000, 2**31 - 1, 2**32 - 1))


def mutate_header(data: bytes, rng: random.Random) -> bytes:
  """A number in the first hundred bytes set to an extreme, in either order."""
  out = bytearray(data)
  for _ in range(rng.choice((1, 1, 2))):
    form = rng.choice(("<H", ">H", "<I", ">I", "B"))
    size = struct.calcsize(form)
    if len(out) > size:
      place = rng.randrange(min(len(out) - size, 100))
      struct.pack_into(form, out, place, _draw_uint(rng) % (1 << (8 * size)))
  return bytes(out)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
  """The header of a safetensors file changed, with its right length or another."""
  size = int.from_bytes(data[:8], "little")
  header, rest = data[8 : 8 + size], data[8 + size :]
  header = mutate_json(header, rng) if rng.random() < 0.8 else mutate(header, rng)
  length = len(header)
  if rng.random() < 0.1:
    length = rng.choice((0, 1, length + 1, 2**40, 2**63, 2**64 - 1))
  if rng.random() < 0.1:
    rest = mutate(rest, rng)
  return struct.pack("<Q", length) + header + rest


def mutate_tar(data: bytes, rng: random.Random) -> bytes:
  """A field of a member's header changed, with the right checksum."""
  out = bytearray(data)
  blocks = [place for place in range(0, len(out) - 511, 512) if out[place]]
  headers = [place for place in blocks if out[place + 257 : place + 262] == b"ustar"]
  if not headers:
    return mutate(data, rng)
  start = rng.choice(headers)
  offset, size = rng.choice(
    (
      (0, 100),
      (100, 8),
      (108, 8),
      (124, 12),
      (136, 12),
      (156, 1),
      (157, 100),
      (345, 155),
    )
  )
  if offset == 156:
    field = rng.choice(
      (b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"K", b"x", b"g")
    )
  elif offset in (0, 157, 345):
    names = (b"../../etc/passwd", b"/etc/passwd", b"a.json", b"0.png", b"", b".json")
    field = rng.choice((*names, b"a/" * 40, b"\xff\xfe.json", b"0.1.json", b"0.json"))
  else:
    numbers = (
      b"0",
      b"1",
      b"777",
      b"77777777777",
      b"\x80" + bytes(11),
      b"\xff" * 12,
      b"9",
    )
    field = rng.choice(numbers)
  out[start + offset : start + offset + size] = field[:size].ljust(size, b"\0")
  out[start + 148 : start + 156] = b" " * 8
  total = sum(out[start : start + 512])
  out[start + 148 : start + 156] = b"%06o\0 " % total
  if rng.random() < 0.2:
    return mutate(bytes(out), rng)
  return bytes(out)


def mutate_gzip(data: bytes, rng: random.Random) -> bytes:
  """What a gzip file holds changed, or cut, or followed by more."""
  try:
    raw = gzip.decompress(data)
  except (OSError, EOFError, zlib.error):
    return mutate(data, rng)
  raw = mutate_json(raw, rng) if rng.random() < 0.5 else mutate(raw, rng)
  packed = gzip.compress(raw, 1)
  return rng.choice((packed, packed + packed, packed[: len(packed) // 2]))


def _by_grammar_or_bytes(change: Mutator, share: float = 0.75) -> Mutator:
  return lambda data, rng: (change if rng.random() < share else mutate)(data, rng)


MUTATORS: dict[str, Mutator] = {
  suffix: _by_grammar_or_bytes(change)
  for change, suffixes in (
    (mutate_json, (".json", ".jsonl")),
    (mutate_text, (".jinja", ".txt", ".csv", ".tsv", ".yaml", ".md", ".ids")),
    (mutate_png, (".png",)),
    (mutate_header, (".jpg", ".gif", ".bmp", ".tif", ".webp", ".npy", ".model")),
    (mutate_safetensors, (".safetensors",)),
    (mutate_tar, (".tar",)),
    (mutate_gzip, (".gz",)),
  )
  for suffix in suffixes
}


def change_file(name: str, data: bytes, rng: random.Random) -> bytes:
  """Changes the bytes of a file by the mutator of its suffix."""
  suffix = name[name.rfind(".") :] if "." in name else ""
  return MUTATORS.get(suffix, mutate)(data, rng)
