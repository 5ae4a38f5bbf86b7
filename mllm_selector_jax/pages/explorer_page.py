"""Makes the explorer: a page on which the rows of a pool are searched, seen and judged.

The page holds its data and its scripts, and its policy allows no request and no script
but these. The map is drawn by BokehJS, which the Python package `bokeh` brings.
"""

import base64
import functools
import hashlib
import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.data.images.image_folders import AnyFolders
from mllm_selector_jax.pages import explored_rows, findings, gather, samples
from mllm_selector_jax.pages.explored_rows import STATES, Texts
from mllm_selector_jax.pages.gather import Run, Selection
from mllm_selector_jax.pages.page_templates import make_environment
from mllm_selector_jax.pages.plots import DROPPED, KEPT, POOL, SUSPECT
from mllm_selector_jax.pages.typical_words import find_typical

MOST_BYTES = 25_000_000  # of the whole page; above, it has no pictures
MOST_PICTURE_BYTES = 12_000_000
COLOURS = (KEPT, "#e69f00", SUSPECT, "#9aa5b1", POOL, DROPPED)  # of STATES
_SCRIPTS = tuple(
  f"explorer{name}.js"
  for name in ("_rows", "_map", "_card", "_zoom", "_audit", "", "_start")
)
_BOKEH = ("bokeh.min.js", "bokeh-api.min.js")


def render(workdir: Path, images: AnyFolders, title: str) -> str:
  """Build the page as HTML; the same artifacts and images give the same bytes.

  Args:
    workdir: The run's folder, with at least `pool.parquet`.
    images: The pool's image folders; None shows no images.
    title: The heading of the page.

  Raises:
    InputError: The pool was not checked yet.
    RunError: An artifact cannot be read.
  """
  html = _render(collect(workdir, images), title)
  if len(html.encode()) > MOST_BYTES:  # long ids, or thousands of clusters
    html = _render(collect(workdir, images, 0), title)
  return html


def _render(data: dict[str, Any], title: str) -> str:
  scripts = read_scripts()
  return (
    make_environment()
    .get_template("explorer.html.j2")
    .render(
      title=samples.cut(title, 200),
      data=encode(data),
      scripts=scripts,
      policy=" ".join(map(digest, scripts)),
    )
  )


def collect(
  workdir: Path, images: AnyFolders, picture_bytes: int | None = None
) -> dict[str, Any]:
  """Return the data of the page; columns are aligned with the shown rows.

  Args:
    workdir: The run's folder.
    images: The pool's image folders.
    picture_bytes: The most that thumbnails may take; None for `MOST_PICTURE_BYTES`.
  """
  run = gather.read_run(workdir)
  selection = run.main.selection if run.main else None
  states = explored_rows.find_states(run.pool, selection)
  rows = explored_rows.choose_rows(states)
  first = explored_rows.order_pictures(rows, states)
  texts, records = explored_rows.read_texts(
    run.pool,
    rows,
    first,
    images,
    MOST_PICTURE_BYTES if picture_bytes is None else picture_bytes,
  )
  places, shares = explored_rows.place_rows(workdir, rows)
  lines = [records[row] for row in rows.tolist()]
  return {
    "key": (run.provenance.get("pool") or {}).get("digest", "")[:16],
    "pool": run.pool.rows,
    "arm": run.main.name if run.main and selection else None,
    "states": _count_states(states, rows),
    "shares": [round(share, 4) for share in shares],
    "groups": _describe_groups(run, selection, rows, texts),
    "sources": [samples.cut(name, 60) for name in run.pool.source.names],
    "reasons": _names(run, selection, "reason"),
    "doubts": _names(run, selection, "doubt"),
    "pictures": texts.pictures,
    "rows": {
      "row": rows.tolist(),
      "id": [_cut_id(line.get("id")) for line in lines],
      "hash": [line.get("hash") or "" for line in lines],
      "state": states[rows].tolist(),
      "source": run.pool.source.codes[rows].tolist(),
      "turns": [[(who[0], text) for who, text in row] for row in texts.turns],
      "more": texts.more,
      "images": [len(line.get("images") or ()) for line in lines],
      "pictures": texts.places,
      "places": _round(places),
      **_selection_columns(run, selection, rows),
    },
  }


def _cut_id(text: Any) -> str:
  return "" if text is None else samples.cut(str(text), 200)


def _count_states(
  states: Int[np.ndarray, " N"], rows: Int[np.ndarray, " n"]
) -> list[dict[str, Any]]:
  """Return name, colour, and numbers of rows of each state, in the pool and here."""
  pool = np.bincount(states, minlength=len(STATES)).tolist()
  shown = np.bincount(states[rows], minlength=len(STATES)).tolist()
  return [
    {"name": name, "colour": colour, "pool": pool[place], "shown": shown[place]}
    for place, (name, colour) in enumerate(zip(STATES, COLOURS, strict=True))
  ]


def _describe_groups(
  run: Run, selection: Selection | None, rows: Int[np.ndarray, " n"], texts: Texts
) -> list[dict[str, Any]]:
  """Return number, label, typical words and numbers of rows of each group, by size."""
  if selection is None:
    return []
  words = find_typical(
    [" ".join(text for _, text in turns) for turns in texts.turns],
    selection.group[rows],
  )
  suspect = findings.is_suspect(selection) & (selection.group >= 0)
  suspects = dict(
    zip(*np.unique(selection.group[suspect], return_counts=True), strict=True)
  )
  return [
    {
      "group": line["group"],
      "label": samples.cut(str(line["label"]), 60),
      "words": words.get(line["group"], []),
      "rows": line["size"],
      "kept": line["kept"],
      "suspects": int(suspects.get(line["group"], 0)),
    }
    for line in findings.group_lines(run.pool, selection)
  ]


def _names(run: Run, selection: Selection | None, kind: str) -> list[str]:
  """Return the texts of reasons or doubts; those of the check without a selection."""
  if selection is None:
    return run.pool.reason.names if kind == "reason" else []
  return [samples.cut(name, 160) for name in getattr(selection, kind).names]


def _selection_columns(
  run: Run, selection: Selection | None, rows: Int[np.ndarray, " n"]
) -> dict[str, list]:
  if selection is None:
    nothing = [-1] * len(rows)
    columns = {"reason": run.pool.reason.codes[rows].tolist(), "necessity": []}
    return {**columns, "group": nothing, "doubt": nothing, "rank": nothing}
  return {
    "group": selection.group[rows].tolist(),
    "reason": selection.reason.codes[rows].tolist(),
    "doubt": selection.doubt.codes[rows].tolist(),
    "rank": selection.rank[rows].tolist(),
    "necessity": _round(selection.necessity[rows]) or [],
  }


def _round(values: Float[np.ndarray, "..."] | None) -> list | None:
  """Return numbers with four digits after the point; None for NaN."""
  if values is None:
    return None
  rounded = np.round(values.astype(np.float64), 4) + 0.0  # avoid -0.0
  return np.where(np.isfinite(rounded), rounded, None).tolist()


def encode(data: dict[str, Any]) -> str:
  """Encode data as JSON that may stand inside a script element.

  "<", ">" and "&" are escaped, so that no text of a pool ends the element.
  """
  text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
  for sign in "<>&\u2028\u2029":
    text = text.replace(sign, f"\\u{ord(sign):04x}")
  return text


def digest(script: str) -> str:
  """Return the source expression by which a policy allows an inline script."""
  made = hashlib.sha256(script.encode()).digest()
  return f"'sha256-{base64.b64encode(made).decode()}'"


@functools.cache
def read_scripts() -> list[str]:
  """Read the scripts of the page in their order: those of Bokeh, then ours."""
  library = importlib.resources.files("bokeh") / "server" / "static" / "js"
  own = importlib.resources.files("mllm_selector_jax") / "pages"
  places = [*(library / name for name in _BOKEH), *(own / name for name in _SCRIPTS)]
  scripts = [place.read_text(encoding="utf-8") for place in places]
  for script in scripts:
    # Such a mark inside a script would end its element.
    assert "</script" not in script.lower() and "\r" not in script
  return scripts
