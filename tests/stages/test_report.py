"""The page: what it says, what it withstands, and that it stays small."""

import html.parser
import json
import shutil
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_selector_jax.pages import build_report, findings, gather, picks
from mllm_selector_jax.pages import report_page as pages
from mllm_selector_jax.pages import samples as cards
from mllm_selector_jax.pages.provenance import DASH
from mllm_selector_jax.types import InputError, RunError
from tests.stages import synthetic_workdir

CAP = 10_000_000  # bytes
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Tags(html.parser.HTMLParser):
  """Checks that tags nest; collects their attributes and their text."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.attributes, self.names, self.text = [], [], set(), []
    self.feed(text)
    assert not self.open, self.open

  def handle_starttag(self, tag, attrs):
    self.names.add(tag)
    self.attributes += [(tag, name, value) for name, value in attrs]
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, (tag, self.getpos())

  def handle_data(self, data):
    self.text.append(data)

  @property
  def words(self) -> str:
    return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A finished run: workdir, images and report."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  images = synthetic_workdir.write_workdir(workdir)
  return workdir, str(images), build_report(workdir, str(images))


@pytest.fixture
def copy(whole, tmp_path):
  """A run of one's own, to break."""
  shutil.copytree(whole[0], tmp_path / "run", symlinks=True)
  return tmp_path / "run"


def test_headline_and_tables_agree_with_the_artifacts(whole):
  workdir, _, report = whole
  words = Tags(report).words
  kept = pq.read_table(workdir / "arms/main/selection/selection.parquet")["kept"]
  kept = sum(kept.to_pylist())
  reasons = pq.read_table(workdir / "pool.parquet")["reason"].to_pylist()
  aside = sum(reason is not None for reason in reasons)
  assert f"{kept:,} of 2,000 rows were chosen" in words
  assert f"of the {2000 - aside:,} that can be used" in words
  main, control = (
    json.loads((workdir / f"arms/{arm}/evaluation/results.json").read_text())
    for arm in ("main", "random")
  )
  correct = sum(task["correct"] for task in main["tasks"].values())
  assert f"{correct:,} of 900 questions right" in words
  difference = 100 * (main["macro"]["value"] - control["macro"]["value"])
  assert f"{difference:+.1f} percentage points" in words
  assert "Bonett and Price" in words
  for reason in synthetic_workdir.BROKEN:
    assert f"{reason} {reasons.count(reason)} " in words
  for place in ("selected.json", "tuned/hf/", "pool.provenance".split(".")[0]):
    assert place in words
  pool = pq.read_table(workdir / "pool.parquet").to_pydict()
  usable = {
    image
    for images, reason in zip(pool["image_hashes"], pool["reason"], strict=True)
    if reason is None
    for image in images
  }
  assert f"different image files {len(usable):,} " in words
  assert "not run yet" not in words


def test_measures_are_shown_while_they_are_of_this_selection(whole, copy):
  words = Tags(whole[2]).words
  assert "main (kl) 480 0.0123 19.2 0.4321 0.1234 5.2 %" in words
  assert "random, 480 rows 480 0.0987 14.3 0.5432 0.1357 8.7 %" in words
  assert f"the pool 1,940 {DASH} 14.1 0.0000" in words
  assert (
    "main (kl): distances are those of a sample of 1,000 pool rows (seed 0)" in words
  )
  path = copy / "measures/measures.json"
  found = json.loads(path.read_text())
  missing = dict.fromkeys(("coverage_radius", "mean_distance", "duplicates"))
  for line in found["sets"]:
    line.update(missing)
  found["missing"] = dict.fromkeys(missing, "no <embeddings>")
  path.write_text(json.dumps(found))
  words = Tags(build_report(copy, None)).words
  assert f"main (kl) 480 0.0123 19.2 {DASH} {DASH} {DASH}" in words
  assert "Distances and duplicates are not measured: no <embeddings>" in words
  path.write_text(json.dumps({"sets": [], "why": "the target <is> not given"}))
  words = Tags(build_report(copy, None)).words
  assert "Not measured: the target <is> not given" in words
  marker = copy / "arms/main/selection/provenance.json"
  marker.write_text(json.dumps({**json.loads(marker.read_text()), "digest": "1" * 64}))
  assert "measures of diversity: not run yet" in Tags(build_report(copy, None)).words


def test_provenance_is_a_table_with_digests_and_versions(whole):
  workdir, _, report = whole
  words = Tags(report).words
  for path in workdir.glob("*/provenance.json"):
    made = json.loads(path.read_text())
    assert made["digest"][:12] in words
    for name, digest in made["inputs"].items():
      assert f"{name} {digest[:12]}" in words
    for name, version in made["packages"].items():
      assert f"{name} {version}" in words.replace("\xa0", " ")


def test_report_stands_alone_and_is_small(whole):
  report = whole[2]
  tags = Tags(report)
  assert len(report.encode()) < CAP
  assert "script" not in tags.names
  for tag, name, value in tags.attributes:
    assert not name.startswith("on"), (tag, name)
    if name in ("src", "href", "srcset", "action"):
      # The page beside it is the only other file.
      assert value.startswith(("data:image/", "#")) or value == "explorer.html", value
    if tag == "img" and name == "alt":
      assert value
  assert "url(" not in report and "@import" not in report


def test_same_artifacts_give_the_same_bytes(whole):
  workdir, images, report = whole
  synthetic_workdir.write_provenance(workdir / "report.provenance.json", "report", {})
  assert build_report(workdir, images) == report


def test_markup_in_a_conversation_is_shown(tmp_path):
  images = synthetic_workdir.write_workdir(tmp_path / "run", rows=40, stages="check")
  table = pq.read_table(tmp_path / "run/pool.parquet")
  reason = ["malformed" if row == 3 else None for row in range(40)]
  place = table.column_names.index("reason")
  table = table.set_column(place, "reason", pa.array(reason, pa.string()))
  pq.write_table(table, tmp_path / "run/pool.parquet")
  tags = Tags(build_report(tmp_path / "run", str(images)))
  assert "script" not in tags.names
  assert "<script>alert('x')</script>" in tags.words
  assert "é" * 200 in tags.words and "é" * 301 not in tags.words


@pytest.mark.parametrize("stages", ["check", "select"])
def test_parts_that_were_not_run_are_named(tmp_path, stages):
  images = synthetic_workdir.write_workdir(tmp_path / "run", 300, stages)
  words = Tags(build_report(tmp_path / "run", str(images))).words
  assert "The evaluation: not run yet" in words
  assert ("The selection: not run yet" in words) == (stages == "check")
  assert ("Training: not run yet" in words) == (stages == "check")


def test_a_missing_pool_and_damage_are_named(copy):
  (copy / "arms/main/selection/selection.parquet").write_bytes(b"PAR1 nothing")
  with pytest.raises(RunError, match=r"selection\.parquet"):
    build_report(copy, None)
  (copy / "arms/main/selection/selection.parquet").unlink()
  (copy / "arms/random/evaluation/results.json").write_text("{")
  with pytest.raises(RunError, match=r"results\.json"):
    build_report(copy, None)
  (copy / "pool.parquet").unlink()
  with pytest.raises(InputError, match=r"pool\.parquet is not there"):
    build_report(copy, None)


def test_a_selection_of_another_pool_is_refused(copy):
  table = pq.read_table(copy / "pool.parquet").slice(0, 100)
  pq.write_table(table, copy / "pool.parquet")
  with pytest.raises(RunError, match=r"to another pool|different pools"):
    build_report(copy, None)


def test_many_arms_are_listed_and_markup_in_names_is_shown(copy):
  for seed in range(4):
    for strategy, arm in (("kl", "main"), ("random", "random")):
      shutil.copytree(copy / "arms" / arm, copy / "arms" / f"{strategy}-25%-{seed}")
  (copy / "arms/random").rename(copy / "arms/<i>random")
  path = copy / "arms/main/selection/summary.json"
  summary = json.loads(path.read_text())
  summary["warnings"] = ["</p><script>alert(1)</script>"]
  summary["strategy"] = "<b onload=alert(2)>"
  path.write_text(json.dumps(summary))
  (copy / "arms/main/exports/llava").mkdir(parents=True)  # made from nothing
  tags = Tags(build_report(copy, None, title="<script>alert(3)</script>"))
  assert "Stale export. llava in" in tags.words
  for seed in range(4):
    assert f"kl-25%-{seed} kl 25%" in tags.words
    assert f"random-25%-{seed} random 25%" in tags.words
  assert not tags.names & {"script", "i>random"}
  assert tags.words.count("<script>alert(3)</script>") == 2
  assert "<script>alert(1)</script>" in tags.words
  assert "<b onload=alert(2)>" in tags.words and "<i>random" in tags.words


def test_fractional_scores_and_unasked_questions_are_shown(copy):
  path = copy / "arms/main/evaluation/results.json"
  results = json.loads(path.read_text())
  results["tasks"]["text"] |= {"metric": "anls", "correct": 101.25}
  results["aside"] = {"count": 3, "reasons": {"missing image": 3}}
  path.write_text(json.dumps(results))
  words = Tags(build_report(copy, None)).words
  assert "text anls 101.2 of 150" in words
  assert "count neither as right nor as wrong: 3 (missing image: 3)" in words


def write_large(workdir, images, rows: int):
  """A pool built to be large: many sources and groups, long texts, noise."""
  rng = np.random.default_rng(0)
  workdir.mkdir()
  images.mkdir()
  for number in range(20):
    noise = rng.integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(images / f"{number}.png", compress_level=0)
  turns = [{"from": who, "value": "'<&>" * 5_000} for who in ("human", "gpt")]
  data = json.dumps({"conversations": turns * 20}).encode()
  (workdir / "pool.json").write_bytes(data)
  row = np.arange(rows)
  group = row % 3_000
  aside = rng.random(rows) < 0.02
  reason = np.where(aside, np.array([*findings.REASONS])[row % 12], None)
  pool = {
    "row": row,
    "id": pa.array([f"{n}" + "<&" * 40 for n in row]),
    "source": [f"source {n} " + "&" * 90 for n in row % 5_000],
    "images": [[f"{n}.png"] for n in row % 20],
    "image_hashes": [[f"{n:064d}"] for n in row],
    "turns": np.full(rows, 20),
    "tokens": rng.integers(20, 2_000, rows),
    "reason": pa.array(reason, pa.string(), from_pandas=True),
    "detail": ["<" * 400] * rows,
    "truncated": rng.random(rows) < 0.1,
    "file": [str(workdir / "pool.json")] * rows,
    "offset": np.zeros(rows, int),
    "length": np.full(rows, len(data)),
  }
  pq.write_table(pa.table(pool), workdir / "pool.parquet")
  kept = ~aside & (rng.random(rows) < 0.2)
  gain = np.where(kept, 1.0, 0.0) + rng.random(rows)
  suspect = ~kept & ~aside & (rng.random(rows) < 0.1)
  reasons = np.where(kept, "kept", np.where(suspect, "suspect: bound", "below"))
  lines = [
    {"group": g, "name": "&" * 90, "target_share": 1 / 3_000} for g in range(3_000)
  ]
  synthetic_workdir.write_selection(
    workdir / "arms/main/selection",
    {
      "kept": kept,
      "rank": pa.array(np.where(kept, row, -1)),
      "group": group,
      "necessity": rng.random(rows),
      "gain": gain,
      "threshold": np.ones(rows),
      "reason": reasons,
    },
    {
      "strategy": "kl",
      "budget": "20%",
      "groups": lines,
      "warnings": ["<" * 5_000] * 99,
    },
  )
  account = {"outputs": {f"part-{n:09d}.parquet": "0" * 64 for n in range(5_000)}}
  (workdir / "pool.provenance.json").write_text(json.dumps(account))


def test_a_large_pool_gives_a_small_report_in_modest_memory(tmp_path):
  workdir, images = tmp_path / "run", tmp_path / "images"
  write_large(workdir, images, rows=200_000)
  usual = pa.default_memory_pool()
  counted = pa.proxy_memory_pool(usual)
  pa.set_memory_pool(counted)
  tracemalloc.start()
  try:
    run = gather.read_run(workdir)
    shown = picks.pick_rows(run.pool, run.main.selection)
    cards.make_cards(run.pool, run.main.selection, str(images), shown)
    peak = tracemalloc.get_traced_memory()[1] + counted.max_memory()
  finally:
    tracemalloc.stop()
    pa.set_memory_pool(usual)
  assert peak < 300e6, f"{peak / 1e6:.0f} MB"
  report = build_report(workdir, str(images))
  assert len(report.encode()) < CAP
  assert "to keep this page" not in report
  assert 50 < report.count("<article") <= picks.MOST_CARDS


def test_pictures_are_left_out_before_the_page_grows_too_large(tmp_path, monkeypatch):
  images = synthetic_workdir.write_workdir(tmp_path / "run", 100, "check")
  report = build_report(tmp_path / "run", str(images))
  monkeypatch.setattr(pages, "MOST_BYTES", len(report.encode()))
  smaller = build_report(tmp_path / "run", str(images))
  assert len(smaller.encode()) < len(report.encode())
  assert "Pictures were left out to keep this page under 10 MB." in smaller
