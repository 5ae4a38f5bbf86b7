"""The rules that name a row's source."""

import pytest

from mllm_selector_jax.data import sources
from mllm_selector_jax.types import InputError, Record

CASES = [
  ("auto", {}, "coco/train/1.jpg", "coco"),
  ("auto", {}, None, "text"),
  ("auto", {}, "./1.jpg", "image"),
  ("auto", {"source": "s"}, "coco/1.jpg", "s"),
  ("auto", {"data_source": "d"}, "coco/1.jpg", "d"),
  ("auto", {"source": None, "data_source": ""}, "coco/1.jpg", "coco"),
  ("auto", {"texts": [{"source": "vqa"}]}, None, "vqa"),
  ("auto", {"texts": [3]}, None, "text"),
  ("field:kind", {"kind": 3}, None, "3"),
  ("field:kind", {}, "gqa/1.jpg", "gqa"),
  ("prefix", {"source": "s"}, "coco/train/1.jpg", "coco"),
  ("prefix:2", {}, "coco/train/1.jpg", "coco/train"),
  ("prefix:2", {}, "coco/1.jpg", "coco"),
  ("prefix:9", {}, None, "text"),
  ("file", {"source": "s"}, None, "mix"),
  ("rule:coco/*=coco; *.json=rest", {}, "coco/1.jpg", "coco"),
  ("rule:coco/*=coco; mix.json=rest", {}, None, "rest"),
  ("rule:coco/*=coco", {"source": "s"}, "gqa/1.jpg", "s"),
]


@pytest.mark.parametrize(("rule", "value", "image", "wanted"), CASES)
def test_rules(rule, value, image, wanted):
  find = sources.make_finder(rule)
  assert find(Record(0, 1, value), image, "folder/mix.json") == wanted


def test_a_source_that_the_file_knows():
  find = sources.make_finder("auto")
  assert find(Record(0, 1, {}, source="given"), "a/1.png", "f") == "given"


@pytest.mark.parametrize(
  "rule", ["", "field:", "prefix:0", "prefix:x", "files", "rule:", "rule:a", "rule:=a"]
)
def test_what_is_no_rule(rule):
  with pytest.raises(InputError, match=r"pool\.source="):
    sources.make_finder(rule)
