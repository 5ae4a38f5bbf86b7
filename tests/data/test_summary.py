"""The summary of a pool, counted and written."""

import json

import numpy as np

from mllm_selector_jax.data.pool import pool_summary, summary_text
from mllm_selector_jax.types import REASONS
from tests.data.test_table import make_line


def tally(lines, size=100):
  counts = pool_summary.Tally()
  for line in lines:
    counts.add(line, [size] * len(line.image_hashes))
  return counts.result()


def aside(row, reason, **changes):
  return make_line(row, status="aside", reason=reason, detail="why", **changes)


def test_counts():
  lines = [make_line(n, image_hashes=(f"{n % 3}",), turns=n % 2 + 1) for n in range(9)]
  lines += [make_line(n, images=(), image_hashes=(), source="text") for n in (9, 10)]
  lines += [make_line(11, image_hashes=("alone",), truncated=True)]
  lines += [aside(n, "malformed", source="unknown") for n in range(12, 20)]
  lines += [aside(20, "too long")]
  found = tally(lines)
  assert (found["rows"], found["ok"], found["text_only"]) == (21, 12, 2)
  assert list(found["aside"]) == ["malformed", "too long"]
  assert found["aside"]["malformed"]["rows"] == 8
  assert [e["row"] for e in found["aside"]["malformed"]["examples"]] == [*range(12, 17)]
  assert found["sources"] == {
    "source": {"rows": 11, "ok": 10},
    "unknown": {"rows": 8, "ok": 0},
    "text": {"rows": 2, "ok": 2},
  }
  assert found["images"] == {
    "distinct": 4, "rows": 10, "uses": 10, "shared_uses": 9, "bytes": 400,
    "a_row": {"0": 2, "1": 10}, "tiles": 12, "tokens": 60, "saved": {},
  }  # fmt: skip
  assert found["truncated"] == 1
  assert found["turns"]["histogram"] == {"1": 5, "2": 7}
  json.dumps(found, allow_nan=False)


def test_lengths_against_numpy():
  lengths = np.random.default_rng(0).integers(1, 3000, 501)
  found = tally([make_line(n, tokens=int(t)) for n, t in enumerate(lengths)])["tokens"]
  assert found["total"] == lengths.sum()
  assert (found["least"], found["most"]) == (lengths.min(), lengths.max())
  ordered = np.sort(lengths)
  assert found["percentiles"]["50"] == ordered[250]
  for mark, value in found["percentiles"].items():
    assert (ordered <= value).mean() >= int(mark) / 100 > (ordered < value).mean()


def test_text_for_people():
  lines = [make_line(n, source=f"s{n % 30}") for n in range(1200)]
  lines += [aside(n, "missing image") for n in range(1200, 1207)]
  text = summary_text.format_summary(tally(lines))
  assert text.startswith("1,207 rows = 1,200 usable + 7 set aside")
  assert "missing image" in text and REASONS["missing image"] in text
  assert "row 1,200 (id 1200): why" in text
  assert "and 2 more" in text
  assert "11 more" in text  # sources
  assert max(map(len, text.splitlines())) < 130


def test_hostile_text_cannot_move_the_cursor():
  lines = [make_line(0), aside(1, "malformed", id="\x1b[2J\r\nx", source="\x1b[31m")]
  text = summary_text.format_summary(tally(lines))
  assert "\x1b" not in text and "\r" not in text


def test_a_pool_of_text_alone():
  line = make_line(0, images=(), image_hashes=(), tiles=0)
  text = summary_text.format_summary(tally([line]))
  assert "0 distinct" in text and "1 rows (100.0 %)" in text


def test_nothing_usable():
  found = tally([aside(n, "missing image") for n in range(3)])
  text = summary_text.explain_nothing(["pool.json"], found)
  assert text.startswith("pool.json: none of the 3 rows can be used.")
  assert "pool.images" in text
  json.dumps(found, allow_nan=False)
  summary_text.format_summary(found)
