"""The report of hostile rows in a real browser: nothing runs or is asked for."""

import json

import pytest

from mllm_selector_jax.pages import build_report
from tests import browser as browsers
from tests.stages.hostile_rows import HOSTILE, write_hostile

# What runs, fetches or leads elsewhere.
ACTIVE = (
  "script, iframe, object, embed, base, form, link, style[src], svg[onload], [onerror],"
  " meta[http-equiv=refresh], a[href^='javascript'], img:not([src^='data:'])"
)


@pytest.fixture(scope="module")
def browser():
  with browsers.open_browser() as opened:
    yield opened


def test_a_report_of_hostile_rows_runs_nothing(tmp_path, browser):
  workdir = tmp_path / "run"
  write_hostile(workdir, "all")
  path = workdir / "arms/main/selection/summary.json"
  summary = json.loads(path.read_text())
  summary["warnings"] = [*HOSTILE[:3]]
  path.write_text(json.dumps(summary))
  results = workdir / "arms/main/evaluation/results.json"
  value = json.loads(results.read_text())
  tasks = value["tasks"]
  value["tasks"] = {f"{HOSTILE[1]}{name}": each for name, each in tasks.items()}
  results.write_text(json.dumps(value))
  page = tmp_path / "report.html"
  page.write_text(build_report(workdir, None, HOSTILE[0]), "utf-8", "backslashreplace")
  with browsers.open_page(browser, page) as (view, said):
    view.wait_for_timeout(200)
    assert view.evaluate("document.scripts.length") == 0
    assert view.locator(ACTIVE).count() == 0
    words = view.inner_text("body")
    for text in HOSTILE[:3]:
      assert text in words
    assert HOSTILE[0] in view.title()
    assert said == [page.as_uri()]
