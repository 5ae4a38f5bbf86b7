"""LLaVA's own data path beside ours: token ids, supervised tokens, image, pixels.

    python benchmarks/llava_data.py --llava=DIR_OF_A_LLAVA_CHECKOUT \\
        [--rows=3000] [--write=tests/data/golden/llava.json]

The checkout's functions are run as they are: the conversation templates, the
preprocessing, the collation's cut, the expansion of the image, the padding of
pixels. The exit status is 1 if anything differs without a reason given here.
Nothing is written unless --write names the golden file.
"""

import argparse
import collections
import itertools
import json
import pathlib
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.llava_cases import (
  CASES,
  CUT,
  MARK,
  MASKED,
  OVERLAP,
  SHAPES,
  Case,
  draw_case,
  picture,
  talk,
)
from benchmarks.llava_original import IMAGE, PATCHES, Original
from mllm_selector_jax.data.images.image_forms.square_form import to_pixels
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
from mllm_selector_jax.types import ImageOptions, RowError
from tests import llama_like
from tests.fixed_images import ONE_IMAGE, fixed_images

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = (8, 32, 336)


def encode_ours(tokenizer, template, turns, has_image, max_length, system):
  """As `Original.encode`, by our encoder."""
  image = tokenizer.convert_tokens_to_ids(MARK)
  encoder = Encoder(
    tokenizer, TEMPLATES[template], fixed_images(image, PATCHES), max_length, system
  )
  try:
    sample = encoder.encode(turns, ONE_IMAGE if has_image else [])
  except RowError as error:
    return f"aside: {error.reason}"
  ids = sample.tokens.copy()
  ids[ids == image] = IMAGE
  return ids, sample.supervised


def system_of(template: str, case: Case) -> str | None:
  """LLaVA's llama-2 has a system text of its own, which we do not ship."""
  return "" if template == "llama-2" and case.system is None else case.system


# Outcomes without anything to learn from, under our name and LLaVA's.
SAME = {
  (f"aside: {MASKED}", "masks the row"),
  ("aside: no supervised token", "cuts all answers"),
  ("aside: too long", "cuts all answers"),
}


def compare(ours, theirs) -> str:
  """What agrees, in words."""
  if isinstance(ours, str) or isinstance(theirs, str):
    if isinstance(theirs, str) and isinstance(ours, str) and (ours, theirs) in SAME:
      return f"same: {theirs}"
    words = [found if isinstance(found, str) else "kept" for found in (ours, theirs)]
    return f"ours {words[0]}, LLaVA {words[1]}"
  if not np.array_equal(ours[0], theirs[0]):
    return "other tokens"
  if not np.array_equal(ours[0] == IMAGE, theirs[0] == IMAGE):
    return "other image position"
  return "same" if np.array_equal(ours[1], theirs[1]) else "other supervised"


def explain(case: Case, state: str) -> str:
  """Why a drawn conversation may come out otherwise; "" if it may not."""
  if state == "ours aside: too long, LLaVA kept":
    return CUT
  asked = (value.replace(MARK, "").strip() for value in case.values)
  overlaps = any(f" {value}".endswith(" ASSISTANT:") for value in asked)
  return OVERLAP if state == "other supervised" and overlaps else ""


class Line(NamedTuple):
  """One of the table's lines; `why` names the reason of a wanted difference."""

  what: str
  name: str
  state: str
  why: str = ""

  @property
  def is_fine(self) -> bool:
    return self.state.startswith("same") == (self.why in ("", MASKED))


def compare_pixels(original: Original) -> Iterator[Line]:
  for width, height in SHAPES:
    image = picture(width, height)
    for size in SIZES:
      normal, raw = original.pixels(image, size)
      ours = to_pixels(image, ImageOptions(size, MEAN, STD))
      off = np.abs(raw.astype(int) - ours).max()
      ready = (ours.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
      far = np.abs(ready - normal).max()
      state = "same" if off == 0 and far < 1e-5 else f"differ by {off}, {far:.0e}"
      yield Line("pixels", f"{width} x {height} to {size}", state)


def read_both(original: Original, template: str, case: Case, kind: str):
  """Our result and LLaVA's."""
  turns, has_image = talk(case), any(MARK in value for value in case.values)
  tokenizer = llama_like.make_tokenizer(kind)
  arguments = template, turns, has_image, case.max_length, system_of(template, case)
  theirs = original.encode(tokenizer, *arguments)
  return encode_ours(tokenizer, *arguments), theirs


def compare_named(original: Original, golden: list) -> Iterator[Line]:
  """The named cases' lines; LLaVA's results are added to `golden`."""
  for template, cases in CASES.items():
    for name, case in cases.items():
      states = collections.Counter()
      for kind in llama_like.KINDS:
        ours, theirs = read_both(original, template, case, kind)
        states[compare(ours, theirs)] += 1
        golden.append(
          {
            "case": name,
            "template": template,
            "kind": kind,
            "turns": [[turn["from"], turn["value"]] for turn in talk(case)],
            "max_length": case.max_length,
            "system": system_of(template, case),
            "differs": case.differs,
            **_store(theirs),
          }
        )
      for state, count in states.items():
        part = "" if len(states) == 1 else f" ({count} of {states.total()} tokenizers)"
        yield Line(template, name, f"{state}{part}", case.differs)


def compare_drawn(original: Original, rows: int) -> Iterator[Line]:
  for template in CASES:
    counts = collections.Counter()
    rng = random.Random(0)
    for number in range(rows):
      case = draw_case(rng, template)
      kind = llama_like.KINDS[number % len(llama_like.KINDS)]
      state = compare(*read_both(original, template, case, kind))
      why = "" if state.startswith("same") else explain(case, state)
      counts[state, why] += 1
      if not why and not state.startswith("same"):
        print(f"unexplained: {template}, {kind}, {state}: {case}")
    for (state, why), count in counts.most_common():
      yield Line(template, f"{count:,} of {rows:,} drawn", state, why)


def _store(theirs) -> dict[str, Any]:
  if isinstance(theirs, str):
    return {"outcome": theirs}
  ids, supervised = theirs
  edges = np.flatnonzero(np.diff(np.concatenate([[0], supervised, [0]]).astype(int)))
  return {"tokens": ids.tolist(), "supervised": edges.reshape(-1, 2).tolist()}


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--llava", type=pathlib.Path, required=True)
  parser.add_argument("--rows", type=int, default=3000, help="drawn, a template")
  parser.add_argument("--write", type=pathlib.Path)
  arguments = parser.parse_args()
  warnings.filterwarnings("ignore")
  transformers.logging.set_verbosity_error()
  original = Original(arguments.llava)
  golden: list[dict[str, Any]] = []
  fine = True
  for line in itertools.chain(
    compare_named(original, golden),
    compare_drawn(original, arguments.rows),
    compare_pixels(original),
  ):
    mark = " " if line.is_fine else "!"
    print(f"{mark} {line.what:9} {line.name:28} {line.state:40} {line.why}".rstrip())
    fine &= line.is_fine
  if arguments.write:
    write(arguments.write, original, golden)
  return 0 if fine else 1


def write(path: pathlib.Path, original: Original, rows: list) -> None:
  pixels = [
    {"shape": shape, "pixels": original.pixels(picture(*shape), 8)[1].ravel().tolist()}
    for shape in SHAPES[:6]
  ]
  head = {
    "tokenizers": {kind: llama_like.identify(kind) for kind in llama_like.KINDS},
    "patches": PATCHES,
    "pixels": [{**item, "pixels": [*map(int, item["pixels"])]} for item in pixels],
  }
  lines = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows]
  start = json.dumps(head, separators=(",", ":"))[:-1]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(start + ',"rows":[\n' + ",\n".join(lines) + "\n]}\n")
  print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
  sys.exit(main())
