"""What the report is made from: comparison, shares, picks, records and charts."""

import base64
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.pages import findings, gather, picks, plots, tables
from mllm_selector_jax.pages import samples as cards
from mllm_selector_jax.types import Picture
from tests.stages import synthetic_workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A finished run."""
  place = tmp_path_factory.mktemp("parts") / "run"
  synthetic_workdir.write_workdir(place)
  return place


def test_the_control_has_the_same_budget_and_ending(workdir, tmp_path):
  copy = tmp_path / "run"
  shutil.copytree(workdir, copy, symlinks=True)
  shutil.copytree(copy / "arms/random", copy / "arms/random-25%-2")
  shutil.copytree(copy / "arms/main", copy / "arms/kl-25%-2")
  run = gather.read_run(copy)
  named = {arm.name: arm for arm in run.arms}
  assert run.main.name == "main"
  assert run.control_of(named["kl-25%-2"]).name == "random-25%-2"
  assert run.control_of(named["main"]).name == "random"
  assert run.control_of(named["random"]) is None


def make_arm(name: str, scores: dict) -> gather.Arm:
  return gather.Arm(name, None, None, None, scores, False, False)


def test_difference_of_one_task_is_bonett_and_prices():
  both, won, lost, neither = 40, 25, 10, 25
  pairs = [(1, 1)] * both + [(1, 0)] * won + [(0, 1)] * lost + [(0, 0)] * neither
  arms = [
    make_arm(name, {("t", str(n)): pair[side] for n, pair in enumerate(pairs)})
    for side, name in enumerate(("main", "random"))
  ]
  found = intervals.paired_difference(*(arm.scores for arm in arms))
  first, second = (won + 1) / (len(pairs) + 2), (lost + 1) / (len(pairs) + 2)
  spread = (first + second - (first - second) ** 2) / (len(pairs) + 2)
  half = 1.959964 * np.sqrt(spread)
  wanted = (won - lost) / len(pairs)
  for part in (found.tasks["t"], found.macro):
    np.testing.assert_allclose(part.value, wanted)
    np.testing.assert_allclose(part.low, first - second - half)
    np.testing.assert_allclose(part.high, first - second + half)
  assert found.macro.questions == len(pairs) and found.macro.verdict == "better"


@example({(task, "0"): (0, 1) for task in "abc"})
@given(
  st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.integers(0, 9).map(str)),
    st.tuples(st.integers(0, 1), st.integers(0, 1)),
    min_size=1,
  )
)
@settings(max_examples=60, deadline=None)
def test_difference_is_odd_and_holds_its_value(pairs):
  left = make_arm("left", {key: float(pair[0]) for key, pair in pairs.items()})
  turned = dict(reversed(pairs.items()))
  right = make_arm("right", {key: float(pair[1]) for key, pair in turned.items()})
  there = intervals.paired_difference(left.scores, right.scores).macro
  back = intervals.paired_difference(right.scores, left.scores).macro
  np.testing.assert_allclose(there.value, -back.value, atol=1e-12)
  np.testing.assert_allclose(there.low, -back.high, atol=1e-12)
  assert there.low <= there.value <= there.high
  assert there.questions == len(pairs)
  assert (
    intervals.paired_difference(left.scores, left.scores).macro.verdict == "unclear"
  )


def test_arms_without_a_common_question_have_no_difference():
  left, right = make_arm("a", {("t", "1"): 1.0}), make_arm("b", {("u", "1"): 0.0})
  assert intervals.paired_difference(left.scores, right.scores) is None


def test_shares_and_bounds_agree_with_a_plain_count(workdir):
  run = gather.read_run(workdir)
  selection = run.main.selection
  sources = pq.read_table(workdir / "pool.parquet")["source"].to_pylist()
  sources = np.array(sources)
  for line in findings.source_lines(run.pool, selection):
    mine = sources == line["name"]
    assert line["kept"] == (mine & selection.kept).sum()
    usable = (mine & ~run.pool.aside).sum() / (~run.pool.aside).sum()
    np.testing.assert_allclose(line["pool"], usable)
    chosen = (mine & selection.kept).sum() / selection.kept.sum()
    np.testing.assert_allclose(line["share"], chosen)
  lines = findings.group_lines(run.pool, selection)
  for line in lines:
    names, counts = np.unique(
      sources[selection.group == line["group"]], return_counts=True
    )
    name, share = line["mostly"]
    assert counts[names == name] == counts.max()
    np.testing.assert_allclose(share, counts.max() / counts.sum())
  assert sum(line["kept"] for line in lines) == selection.kept.sum()
  np.testing.assert_allclose(sum(line["share"] for line in lines), 1.0)
  reasons = np.array([selection.reason.names[code] for code in selection.reason.codes])
  bounds = [
    selection.necessity[(selection.group == group) & (reasons == reasons[row])].min()
    for row in np.flatnonzero(findings.is_suspect(selection))[:1]
    for group in np.unique(selection.group[reasons == reasons[row]])
  ]
  np.testing.assert_allclose(sorted(findings.upper_bounds(selection)), sorted(bounds))


def test_picks_are_what_they_say(workdir):
  run = gather.read_run(workdir)
  selection = run.main.selection
  shown = {pick.name: pick.rows for pick in picks.pick_rows(run.pool, selection)}
  first = shown["Kept, ranked first"]
  np.testing.assert_array_equal(selection.rank[first], np.arange(len(first)))
  facts = [dict(cards._decision(selection, row)[0]) for row in first[:2]]
  kept = f"{selection.kept.sum():,}"
  assert [fact["rank"] for fact in facts] == [f"1 of {kept}", f"2 of {kept}"]
  assert selection.kept[shown["Kept, at random"]].all()
  assert findings.is_suspect(selection)[shown["Suspect, left out"]].all()
  near = shown["Near the threshold"]
  threshold = findings.threshold_of(selection)
  dropped = near[~selection.kept[near]]
  rest = ~selection.kept & ~findings.is_suspect(selection)
  nearest = np.nanmin(np.abs(selection.gain[rest] - threshold))
  assert np.abs(selection.gain[dropped[0]] - threshold) == nearest
  aside = shown["Set aside by the check"]
  assert run.pool.aside[aside].all()
  codes = set(run.pool.reason.codes[aside[: len(synthetic_workdir.BROKEN)]])
  assert len(codes) == len(synthetic_workdir.BROKEN)


def test_the_first_cards_are_confirmed_and_of_many_groups(workdir):
  run = gather.read_run(workdir)
  old = run.main.selection
  rows = len(old.kept)
  rng = np.random.default_rng(0)
  judged = old.group % 4 != 0
  confirmed = judged & (rng.random(rows) < 0.5)
  codes = np.where(old.kept & (rng.random(rows) < 0.2), rng.integers(0, 3, rows), -1)
  names = ["5 of 8 near rows answer 'a'", "8 of 8 near rows answer 'b'", "other"]
  selection = dataclasses.replace(
    old, judged=judged, confirmed=confirmed, doubt=tables.Labels(codes, names)
  )
  shown = {pick.name: pick for pick in picks.pick_rows(run.pool, selection)}
  first = shown["Kept, with the highest necessity"].rows
  able = selection.kept & confirmed & (codes < 0)
  assert able[first].all() and len(set(old.group[first])) == len(first) == 12
  for row in first:  # of its group, none that could be shown has a higher necessity
    group = able & (old.group == old.group[row])
    assert old.necessity[row] == old.necessity[group].max()
  assert (np.diff(old.necessity[first]) <= 0).all()
  doubtful = shown["Kept, but doubtful"]
  assert (codes[doubtful.rows] >= 0).all()
  near = int((codes[old.kept] >= 0).sum() - (codes[old.kept] == 2).sum())
  assert f"most near rows have one other answer ({near})" in doubtful.words
  assert "Kept, but doubtful" not in {p.name for p in picks.pick_rows(run.pool, old)}


def test_boxes_stand_where_their_marks_were(tmp_path):
  path = tmp_path / "pool.json"
  written = json.dumps(
    [
      {
        "messages": [
          {"role": "user", "content": "<image>Where is <ref-object>?"},
          {"role": "assistant", "content": "At <bbox>, near <bbox>."},
        ],
        "images": ["a.png"],
        "objects": {"ref": ["a cup"], "bbox": [[1, 2, 30, 40.5], [5, 6]]},
      }
    ]
  )
  path.write_text(written)
  record = {"file": str(path), "offset": 1, "length": len(written) - 2}
  turns, _ = cards.read_turns({**record, "images": ["a.png"]})
  assert turns == [
    ("question", "Where is a cup?"),
    ("answer", "At [1, 2, 30, 40.5], near [5, 6]."),
  ]


def test_thumbnails_are_small_and_broken_images_say_why(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
  Image.fromarray(noise).save(tmp_path / "wide.png")
  Image.fromarray(noise[:40, :30]).save(tmp_path / "small.png")
  (tmp_path / "empty.png").write_bytes(b"")
  Image.new("L", (17_000, 200)).save(tmp_path / "long.png")  # its square is huge
  sizes = {"wide.png": (128, 77), "small.png": (30, 40), "long.png": (128, 2)}
  for name, size in sizes.items():
    uri, _ = cards.make_thumbnail(str(tmp_path), Picture(name))
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert picture.size == size
  for name, reason in (
    ("empty.png", "unreadable image"),
    ("gone.png", "missing image"),
    ("../wide.png", "unsafe path"),
  ):
    assert cards.make_thumbnail(str(tmp_path), Picture(name)) == (None, reason)
  assert cards.make_thumbnail(None, Picture("wide.png")) == (
    None,
    "no image folder given",
  )


@pytest.mark.parametrize(
  "data",
  [
    b'{"conversations": ' + b"[" * 20_000,
    b'{"conversations": [{"from": "gpt", "value": ' + b"9" * 5_000 + b"}]}",
    b"\xff\xfe\x00 not a record",
    b'{"conversations": 3}',
    b'{"conversations": []}',
    b"",
  ],
)
def test_a_broken_record_is_shown_as_it_is(tmp_path, data):
  path = tmp_path / "pool.json"
  path.write_bytes(data)
  record = {"file": str(path), "offset": 0, "length": len(data), "reason": "malformed"}
  [(who, text)], more = cards.read_turns(record)
  assert (who, more) == ("record", 0) and len(text) <= cards.MOST_TEXT + 1
  text.encode()


def test_texts_can_be_written_whatever_is_in_them():
  text = cards.cut("a\ud800b\x00c\x1bd\n", 20)
  assert text == "a\ufffdb\ufffdc\ufffdd\n"
  assert cards.cut("x" * 400, 300) == "x" * 300 + "…"


@pytest.mark.parametrize(
  "values",
  [np.zeros(1), np.full(9, -3.5), np.array([0.0, 1e12]), np.arange(5.0), np.zeros(0)],
)
@pytest.mark.filterwarnings("error")
def test_charts_of_odd_values_and_names_can_be_drawn(values):
  name = "$x^{2 \\frac\n数据 <b>&"
  parts = [(name, plots.KEPT, values), ("none", plots.POOL, np.zeros(0))]
  uri = plots.plot_parts(parts, name, threshold=(0.5, name), bounds=values)
  assert uri == plots.plot_parts(parts, name, threshold=(0.5, name), bounds=values)
  svg = base64.b64decode(uri.split(",")[1]).decode()
  assert "<b>" not in svg and not re.search(r"\d{4}-\d\d-\d\dT", svg)
