"""The explorer in a real browser: on a tiny run, and on drawn and hostile rows."""

import http.server
import json
import pathlib
import shutil
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.evaluation.intervals import wilson
from mllm_selector_jax.inputs.lists import read_references
from mllm_selector_jax.inputs.references import find_rows
from mllm_selector_jax.pages import build_explorer, explorer_page
from mllm_selector_jax.stages import COMMANDS
from tests import browser as browsers
from tests import small_run
from tests.stages import synthetic_workdir
from tests.stages.conftest import SIGNALS
from tests.stages.hostile_rows import HOSTILE, write_hostile


@pytest.fixture(scope="module")
def browser():
  with browsers.open_browser() as opened:
    yield opened


@pytest.fixture(scope="module")
def run(base, scored, tmp_path_factory):
  """A selection and its pages, made by the stages; the scores are those of a model."""
  folder = tmp_path_factory.mktemp("whole") / "work"
  shutil.copytree(scored, folder)
  settings = {"score.model": str(base), "score.signals": SIGNALS}
  settings["select.control"] = False
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["select"](current)
    COMMANDS["report"](current)
  return folder


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
  """Drawn rows with suspects and embeddings of four heaps; the explorer beside them."""
  workdir = tmp_path_factory.mktemp("drawn") / "run"
  images = synthetic_workdir.write_workdir(workdir, 400, "select")
  parts = sorted((workdir / "scores").glob("part-*.parquet"))
  (workdir / "scores/embeddings").mkdir()
  rng = np.random.default_rng(0)
  for part in parts:
    row = pq.read_table(part)["row"].to_numpy()
    vectors = 4 * np.eye(16)[row % 4] + rng.normal(size=(len(row), 16))
    target = workdir / f"scores/embeddings/{part.stem}.npy"
    np.save(target, vectors.astype(np.float32))
  path = workdir / "explorer.html"
  path.write_text(build_explorer(workdir, str(images), "Drawn"))
  return workdir, path


def read_data(path: pathlib.Path) -> dict:
  text = path.read_text().split('id="data">')[1].split("</script>")[0]
  return json.loads(text)


def count_found(page) -> int:
  return int(page.inner_text("#found").split(" of ")[0].replace(",", ""))


def test_a_run_leaves_an_explorer_that_shows_all_rows(run, browser):
  data = read_data(run / "explorer.html")
  decided = pq.read_table(run / "arms/main/selection/selection.parquet").to_pydict()
  kept = {
    row for row, is_kept in zip(decided["row"], decided["kept"], strict=True) if is_kept
  }
  states = [data["states"][state]["name"] for state in data["rows"]["state"]]
  shown = zip(data["rows"]["row"], states, strict=True)
  assert {row for row, state in shown if state.startswith("kept")} == kept
  assert len(states) == data["pool"] == 120
  with browsers.open_page(browser, run / "explorer.html") as (page, said):
    page.wait_for_selector("#map canvas, #map .bk-Figure")
    assert count_found(page) == 120
    assert page.locator("#cards article").count() == 24
    page.click("#more")
    assert page.locator("#cards article").count() == 48
    assert page.locator("#cards img").count() > 0
    assert said == [(run / "explorer.html").as_uri()]


def test_filters_search_and_order_agree_with_the_data(synthetic, browser):
  path = synthetic[1]
  rows = read_data(path)["rows"]
  with browsers.open_page(browser, path) as (page, said):
    page.fill("#search", "COUNT picture")
    wanted = ["count do" in turns[0][1] for turns in rows["turns"]]
    browsers.wait_until(page, f"listed.length === {sum(wanted)}")
    page.fill("#search", "")
    page.select_option("#source", label="shape")
    page.fill("#low", "0.5")
    page.dispatch_event("#low", "change")
    code = read_data(path)["sources"].index("shape")
    wanted = [
      row
      for row, source, necessity in zip(
        rows["row"], rows["source"], rows["necessity"], strict=True
      )
      if source == code and necessity is not None and necessity >= 0.5
    ]
    browsers.wait_until(page, f"listed.length === {len(wanted)}")
    page.select_option("#sort", "high")
    first = page.inner_text("#cards article >> nth=0")
    most = max(
      n
      for n, s in zip(rows["necessity"], rows["source"], strict=True)
      if n and s == code
    )
    assert f"{most:.3f}" in first
    page.click("#reset")
    page.click("#states button:has-text('not kept')")
    assert count_found(page) == sum(state != 3 for state in rows["state"])
    page.click("[data-view=clusters]")
    line = page.locator("#clusterlines tr").nth(0)
    number = int(line.locator("td.n").nth(0).inner_text())
    page.click("#states button:has-text('not kept')")
    line.locator("button").click()
    assert count_found(page) == number
    assert len(said) == 1


def test_rows_are_chosen_on_the_map_with_the_lasso(synthetic, browser):
  with browsers.open_page(browser, synthetic[1]) as (page, said):
    page.wait_for_selector("#map .bk-Figure")
    frame = page.locator("#map").bounding_box()
    page.evaluate(
      "map.plot.toolbar.active_drag ="
      " map.plot.toolbar.tools.find((tool) => tool.type === 'LassoSelectTool')"
    )
    left, top = frame["x"] + 70, frame["y"] + 10
    right, bottom = frame["x"] + frame["width"] - 40, frame["y"] + frame["height"] - 60
    middle = (left + right) / 2
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((middle, top), (middle, bottom), (left, bottom), (left, top)):
      page.mouse.move(x, y, steps=4)
    page.mouse.up()
    browsers.wait_until(page, "chosen !== null")
    number = count_found(page)
    assert 0 < number < 400 and "chosen on the map" in page.inner_text("#found")
    low = "Math.max(...[...chosen].map((place) => rows.places[place][0]))"
    assert page.evaluate(low) < 0.75  # the right side was left out
    page.click("#unlasso")
    assert count_found(page) == 400
    assert len(said) == 1


def test_lists_are_saved_by_keys_and_read_by_select(run, browser, tmp_path):
  workdir, path = run, run / "explorer.html"
  with browsers.open_page(browser, path) as (page, _):
    page.keyboard.press("j")
    page.keyboard.press("i")
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.keyboard.press("j")
    page.keyboard.press("i")
    page.keyboard.press("k")
    assert page.locator("#cards article.current").get_attribute("data-place") == str(
      page.evaluate("listed[1]")
    )
    wanted = page.evaluate("[0, 2].map((at) => rows.row[listed[at]])")
    left = page.evaluate("rows.row[listed[1]]")
    page.keyboard.press("/")
    page.keyboard.type("jio")  # goes into the search, and on no list
    assert page.input_value("#search") == "jio"
    page.click("[data-view=lists]")
    with page.expect_download() as download:
      page.click("[data-list=keep] .save")
    assert download.value.suggested_filename == "force_in.txt"
    download.value.save_as(tmp_path / "force_in.txt")
    text = page.input_value("[data-list=leave] textarea")
    page.reload()
    assert page.inner_text("#listed") == "3"  # the browser has remembered them
    page.evaluate("localStorage.clear()")
  saved = (tmp_path / "force_in.txt").read_text().splitlines()
  assert saved[0] == "id\trow\thash"
  entries = read_references(str(tmp_path / "force_in.txt"), "select.force_in")
  assert sorted(entry.row for entry in entries) == sorted(wanted)
  assert f"\t{left}\t" in text
  pool = read_table(workdir / "pool.parquet")
  assert find_rows(pool, entries, "select.force_in").rows.tolist() == sorted(wanted)


def test_the_audit_shows_precision_with_wilsons_interval(synthetic, browser):
  with browsers.open_page(browser, synthetic[1]) as (page, said):
    page.click("[data-view=audit]")
    total = page.evaluate("data.states[2].shown")
    for key in ("1", "1", "1", "2", "3", "1"):
      page.keyboard.press(key)
    page.keyboard.press("ArrowLeft")  # takes the last one back
    page.click("[data-mark=right]")
    text = page.inner_text("#precision")
    found = wilson(3, 5)
    assert text.startswith(
      f"Precision: 60.0 % (95 % interval {100 * found.low:.1f} % to"
      f" {100 * found.high:.1f} %): 3 wrong, 2 right; 6 of {total} looked at,"
      " 1 undecided"
    )
    page.click("#auditright")
    page.click("#auditwrong")
    assert page.evaluate("[lists.keep.size, lists.leave.size]") == [2, 3]
    with page.expect_download() as download:
      page.click("#savemarks")
    lines = pathlib.Path(download.value.path()).read_text().splitlines()
    assert lines[0] == "id\trow\thash\tmark" and len(lines) == 7
    assert sorted(line.split("\t")[3] for line in lines[1:]) == (
      ["right"] * 2 + ["undecided"] + ["wrong"] * 3
    )
    page.evaluate("localStorage.clear()")
    assert len([text for text in said if not text.startswith("blob:")]) == 1


def test_images_are_enlarged_and_closed_by_keys(synthetic, browser):
  with browsers.open_page(browser, synthetic[1]) as (page, _):
    page.locator("#cards img").nth(0).click()
    assert page.locator("#zoom").is_visible()
    width = page.locator("#zoomimage").bounding_box()["width"]
    assert width > 400
    page.keyboard.press("+")
    assert page.locator("#zoomimage").bounding_box()["width"] == pytest.approx(
      1.5 * width
    )
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()


@pytest.mark.parametrize("view", ["rows", "clusters", "audit", "lists"])
def test_nothing_is_wider_than_a_phone(synthetic, browser, view):
  with browsers.open_page(browser, synthetic[1], 390, 844) as (page, _):
    page.click(f"[data-view={view}]")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wide = page.locator("#map").bounding_box()
    assert wide["x"] >= 0 and wide["x"] + wide["width"] <= 390


def test_hostile_rows_are_shown_as_text(tmp_path, browser):
  workdir, path = tmp_path / "run", tmp_path / "explorer.html"
  write_hostile(workdir)
  path.write_text(build_explorer(workdir, None, HOSTILE[0]))
  with browsers.open_page(browser, path) as (page, said):
    assert count_found(page) == 60
    words = page.inner_text("#cards")
    for text in HOSTILE[:3]:
      assert text in words
    for view in ("clusters", "audit", "lists", "rows"):
      page.click(f"[data-view={view}]")
    page.select_option("#colour", "source")
    page.click("#allkeep")
    page.mouse.move(400, 500)
    assert page.locator("svg[onload], [onerror]").count() == 0
    assert HOSTILE[0] in page.title()
    assert said == [path.as_uri()]


@pytest.fixture
def asked():
  """A server's address and the paths that it was asked for."""
  paths = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      paths.append(self.path)
      self.send_error(404)

    def log_message(self, *_):
      pass

  with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()


def test_the_policy_refuses_foreign_scripts_and_all_requests(
  synthetic, browser, tmp_path, asked
):
  address, paths = asked
  script = f"<script>document.title = 'run'; fetch('{address}/script')</script>"
  foreign = f"<main>{script}<img src='{address}/image'>"
  changed = synthetic[1].read_text().replace("<main>", foreign)
  path = tmp_path / "changed.html"
  path.write_text(changed)
  with browsers.open_page(browser, path) as (page, said):
    page.wait_for_selector("#cards article")
    assert page.title() == "Drawn: explorer" and paths == []
    assert sum("Content Security Policy" in text for text in said) >= 2
  path.write_text(changed.replace("Content-Security-Policy", "no-policy"))
  with browsers.open_page(browser, path) as (page, _):
    page.wait_for_selector("#cards article")
    assert page.title() == "run" and set(paths) >= {"/script", "/image"}


def test_the_page_stays_small_and_its_bytes_the_same(synthetic, monkeypatch):
  workdir, path = synthetic
  images = str(workdir.parent / "images")
  assert build_explorer(workdir, images, "Drawn") == path.read_text()
  monkeypatch.setattr(explorer_page, "MOST_PICTURE_BYTES", 5_000)
  smaller = build_explorer(workdir, images, "Drawn")
  data = json.loads(smaller.split('id="data">')[1].split("</script>")[0])
  assert 0 < sum(map(len, data["pictures"])) <= 5_000
  monkeypatch.setattr(explorer_page, "MOST_BYTES", len(smaller) - 100)
  bare = build_explorer(workdir, images, "Drawn")
  assert json.loads(bare.split('id="data">')[1].split("</script>")[0])["pictures"] == []
