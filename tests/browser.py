"""An installed Chromium, driven by playwright; without one tests are skipped."""

import contextlib
import shutil
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
  *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
  *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextlib.contextmanager
def open_browser():
  """Yields a headless browser."""
  api = pytest.importorskip("playwright.sync_api")
  path = next(filter(None, map(shutil.which, NAMES)), None)
  if path is None:
    pytest.skip(f"none of {', '.join(NAMES)} is installed")
  with api.sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=path, args=list(QUIET))
    yield browser
    browser.close()


@contextlib.contextmanager
def open_page(browser, path, width=1280, height=900):
  """Yields a page that shows a file, and the list of all that it asked for or said.

  The list has the addresses of requests, and the texts of errors and warnings, which
  include what the page's policy refused.
  """
  context = browser.new_context(
    viewport={"width": width, "height": height}, accept_downloads=True
  )
  page, said = context.new_page(), []
  page.on("request", lambda request: said.append(request.url))
  page.on("pageerror", lambda error: said.append(str(error)))
  page.on(
    "console",
    lambda message: said.append(message.text) if message.type != "info" else None,
  )
  page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
  page.goto(path.as_uri())
  yield page, said
  context.close()


def wait_until(page, condition, seconds=20):
  """Waits until a JavaScript expression is true.

  The expression is evaluated by the browser's protocol, since the policy of a page may
  forbid it to the page itself, as `page.wait_for_function` needs it.
  """
  ends = time.monotonic() + seconds
  while not page.evaluate(condition):
    assert time.monotonic() < ends, f"not within {seconds} s: {condition}"
    page.wait_for_timeout(50)
