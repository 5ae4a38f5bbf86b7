"""Questions about any image of a pool's row are leaks, in every family of models."""

import json

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.pipeline import leakage
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.data.pools_on_the_spot import talk
from tests.stages.family_bases import FAMILIES, make_base

SIZES = {"a": (37, 19), "b": (61, 83), "c": (19, 90), "d": (101, 33)}
POOL = [
  {"id": "0", "image": ["a.png", "b.png"],
   "conversations": talk("<image>\n<image>\nWhich is larger?", "b")},
  {"id": "1", "image": "c.png", "conversations": talk("<image>\nIs it red?", "no")},
  {"id": "2", "conversations": talk("What is two and two?", "four")},
]  # fmt: skip
ASKED = [
  ("second", "b.png", "Which is larger?"),
  ("first, in other words", "a.png", "Which is the larger?"),
  ("another image", "d.png", "Which is larger?"),
  ("of another row", "c.png", "Which is larger?"),
  ("alone", "c.png", "Is it red?"),
  ("the words alone", None, "Which is larger?"),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_questions_about_an_image_of_a_row_are_leaks(tmp_path, family):
  rng = np.random.default_rng(0)
  (tmp_path / "images").mkdir()
  for name, (width, height) in SIZES.items():
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"images/{name}.png")
  (tmp_path / "pool.json").write_text(json.dumps(POOL))
  lines = [
    {
      "id": id,
      "question": question,
      "answers": ["x"],
      **({"image": image} if image else {}),
    }
    for id, image, question in ASKED
  ]
  (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
  settings = {
    "pool.demo.rows": 0,
    "pool.data": str(tmp_path / "pool.json"),
    "pool.images": str(tmp_path / "images"),
    "evaluate.tasks": str(tmp_path / "asked.jsonl"),
    "model.conversation": FAMILIES[family][1],
    "model.max_length": 600,
  }
  base = make_base(tmp_path / "base", family)
  with small_run.open_run(tmp_path / "work", base, **settings) as run:
    COMMANDS["check"](run)
    with pytest.raises(InputError, match="Leakage: 3 of 6 evaluation questions"):
      leakage.check_leakage(run)
    path = run.workdir.leakage.path / "leakage.json"
  leaks = json.loads(path.read_text())["leaks"]
  assert {(leak["id"], leak["kind"], leak["row"]) for leak in leaks} == {
    ("second", "same", 0), ("first, in other words", "near", 0), ("alone", "same", 1)
  }  # fmt: skip
