"""The rules that name a row's source."""

import pytest

from mllm_selector_jax.data.pool import sources
from mllm_selector_jax.types import InputError, Picture, Record

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


INSIDE = (Picture(None, b"x"),)
HUB = "hub/CLEVR-Math(MathV360K)/train-00000-of-00001.parquet"


@pytest.mark.parametrize(
  ("record", "image", "wanted"),
  [
    (Record(0, 1, {}, pictures=INSIDE), "image-0", "CLEVR-Math(MathV360K)"),
    (Record(0, 1, {}, pictures=INSIDE), "1.jpg", "CLEVR-Math(MathV360K)"),
    (Record(0, 1, {}, pictures=INSIDE), "/a/b/1.jpg", "CLEVR-Math(MathV360K)"),
    (Record(0, 1, {}, pictures=()), None, "CLEVR-Math(MathV360K)"),
    (Record(0, 1, {}, pictures=INSIDE), "coco/1.jpg", "coco"),
    (Record(0, 1, {}, pictures=(), id="coco/0001"), None, "coco"),
    (Record(0, 1, {"source": "s"}, pictures=INSIDE), "1.jpg", "s"),
    (Record(0, 1, {}, pictures=(Picture("1.jpg"),)), "1.jpg", "image"),
    (Record(0, 1, {}), None, "text"),
  ],
)  # fmt: skip
def test_rows_of_files_with_images_inside_are_named_after_them(record, image, wanted):
  assert sources.make_finder("auto")(record, image, HUB) == wanted


def test_a_file_without_a_name():
  find = sources.make_finder("auto")
  record = Record(0, 1, {}, pictures=INSIDE)
  assert find(record, "1.jpg", "data/train.parquet") == "image"
  assert find(record._replace(pictures=()), None, "train.parquet") == "text"


@pytest.mark.parametrize(
  "rule", ["", "field:", "prefix:0", "prefix:x", "files", "rule:", "rule:a", "rule:=a"]
)
def test_what_is_no_rule(rule):
  with pytest.raises(InputError, match=r"pool\.source="):
    sources.make_finder(rule)
