"""Documentation pages: what they point at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
  *ROOT.glob("*.md"),
  *(ROOT / "docs").rglob("*.md"),
  *(ROOT / "launch").glob("*.md"),
]
PAGE_NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FOLDERS = "benchmarks|configs|docs|launch|tests"


def make_anchor(heading: str) -> str:
  """The anchor that GitHub gives a heading."""
  kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
  return kept.replace(" ", "-")


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_every_link_of_a_page_leads_somewhere(page):
  text = (ROOT / page).read_text()
  for link in re.findall(r"\]\(([^)\s]+)\)", text):
    if link.startswith("http"):
      continue
    name, _, anchor = link.partition("#")
    target = (ROOT / page).parent / name if name else ROOT / page
    assert target.exists(), f"{page}: {link}"
    if anchor:
      headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
      assert anchor in map(make_anchor, headings), f"{page}: {link}"


def test_every_path_that_a_text_names_exists():
  sources = [
    path
    for folder in ("mllm_selector_jax", *FOLDERS.split("|"))
    for path in (ROOT / folder).rglob("*.py")
  ]
  name = re.compile(
    rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\.(?:json|md|png|py|sh|txt))\b"
  )
  found, missing = set(), []
  for path in [*PAGES, *sources]:
    if path.name == "CHANGELOG.md":  # history: names of its time
      continue
    for match in name.findall(path.read_text()):
      found.add(match)
      missing += [f"{path.relative_to(ROOT)}: {match}"] * (not (ROOT / match).exists())
  assert not missing
  assert {"docs/results/parity.md", "tests/test_layers.py"} <= found


def test_every_module_that_a_text_names_exists():
  package = ROOT / "mllm_selector_jax"
  folders = {path.name for path in package.iterdir() if path.is_dir()}
  known = {"setup.py"}
  for folder in (package.name, *FOLDERS.split("|")):
    for path in (ROOT / folder).rglob("*.py"):
      parts = path.relative_to(ROOT).parts
      starts = range(1 if folder == "tests" else len(parts))  # tests: whole paths
      known |= {"/".join(parts[start:]) for start in starts}
  named = re.compile(r"(?<![\w./*<>-])([a-z_]\w*(?:/\w+)*\.py)\b")
  found, missing = set(), []
  for path in [*PAGES, *package.rglob("*.py")]:
    if path.name == "CHANGELOG.md":
      continue
    for name in named.findall(path.read_text()):
      top, slash, _ = name.partition("/")
      if slash and top not in {*folders, *FOLDERS.split("|")}:
        continue  # of another project
      found.add(name)
      missing += [f"{path.relative_to(ROOT)}: {name}"] * (name not in known)
  assert not missing
  assert {"types.py", "folders.py", "data/pool/row_hash.py"} <= found
