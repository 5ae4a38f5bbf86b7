"""Which files of a folder are the pool: by split, in depth, and nothing else."""

import json
import os

import pytest

from mllm_selector_jax.data.files import folders, mixture, splits
from mllm_selector_jax.data.pool import pool_check, summary_text
from mllm_selector_jax.types import InputError
from tests.data.pools_on_the_spot import make_encoder, make_record


def make(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")


def take(folder, wanted="train"):
  found = folders.list_folder(str(folder), splits.parse(wanted))
  cut = len(str(folder)) + 1
  return [name[cut:] for name in found.files], [name[cut:] for name in found.left_out]


LAYOUTS = {
  "files": (["train.jsonl", "more/train.json.gz"], ["test.jsonl", "validation.jsonl"]),
  "shards": (
    ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
    ["data/test-00000-of-00001.parquet", "data/dev-00000-of-00001.parquet"],
  ),
  "subsets": (
    ["CLEVR(Math)/train-00000-of-00001.parquet", "ai2d(a,b)/train-0.parquet"],
    ["ai2d(a,b)/test-0.parquet", "only/validation-0.parquet"],
  ),
  "folders": (
    ["train/data-00000-of-00001.arrow", "train/b.parquet"],
    ["test/data-00000-of-00001.arrow"],
  ),
  "converted": (["default/train/0000.parquet"], ["default/test/0000.parquet"]),
  "words": (["llava_train.json", "train_sft.json"], ["a_val2014.json", "test1k.json"]),
  "beside": (["train.jsonl"], ["extra.jsonl", "test.jsonl"]),
  "in another": (["part/a.jsonl", "train.jsonl"], ["test.jsonl"]),
  "no train": (["a.jsonl", "b.jsonl"], ["test.jsonl"]),
  "none": (["a.jsonl", "b/c.jsonl", "contest.jsonl", "trainer.json"], []),
  "tfds": (
    ["p-train.array_record-00000-of-00001"], ["p-rare.array_record-00000-of-00001"]
  ),
  "unread": (["a.jsonl"], ["images.zip", "old.csv", "x.tfrecord-00000-of-00001"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_train_is_taken_and_the_rest_named(tmp_path, name):
  taken, left = LAYOUTS[name]
  make(tmp_path, *taken, *left, "README.md", "images/a/1.jpg")
  assert take(tmp_path) == (sorted(taken), sorted(left))
  read = [n for n in left if not n.endswith(("zip", "csv")) and "tfrecord" not in n]
  assert take(tmp_path, "all")[0] == sorted(taken + read)
  for file in taken + read:  # by its name any is taken
    assert mixture.expand([str(tmp_path / file)]) == [
      mixture.PoolPart(str(tmp_path / file))
    ]


def test_other_splits(tmp_path):
  make(tmp_path, "train.json", "dev.json", "test.json", "x.json")
  assert take(tmp_path, "validation")[0] == ["dev.json"]
  assert take(tmp_path, "val, train") == (
    ["dev.json", "train.json"],
    ["test.json", "x.json"],
  )
  with pytest.raises(InputError, match=r"none of eval.*pool\.splits="):
    take(tmp_path, "eval")
  with pytest.raises(InputError, match="name splits"):
    take(tmp_path, " ,")


def test_without_train_one_split_is_taken_and_of_several_none(tmp_path):
  make(tmp_path, "sub/test-00000.parquet", "sub/test-00001.parquet")
  assert take(tmp_path)[0] == ["sub/test-00000.parquet", "sub/test-00001.parquet"]
  make(tmp_path, "sub/val-00000.parquet")
  with pytest.raises(InputError, match="the splits test, validation"):
    take(tmp_path)


def test_descriptions_and_hidden_files_are_no_pool(tmp_path):
  hidden = (".cache/huggingface/train.json", ".huggingface/a.json", ".gitattributes")
  make(
    tmp_path, "a.json", "dataset_infos.json", "x.json.lock", *hidden, "b/._a.json",
    "b/dataset_info.json", "cache-0a1b.arrow", "b/features.json",
  )  # fmt: skip
  assert take(tmp_path) == (["a.json"], [])


def test_a_saved_data_set_is_what_its_state_lists(tmp_path):
  make(tmp_path, "data-0.arrow", "data-1.arrow", "tmp123.arrow")
  state = {"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}]}
  (tmp_path / "state.json").write_text(json.dumps(state))
  assert take(tmp_path) == (["data-0.arrow", "data-1.arrow"], [])
  state["_indices_data_files"] = [{"filename": "indices.arrow"}]
  (tmp_path / "state.json").write_text(json.dumps(state))
  with pytest.raises(InputError, match="flatten_indices"):
    take(tmp_path)


def test_links_are_followed_each_folder_once(tmp_path):
  make(tmp_path, "blobs/0", "snapshot/sub/x.txt")
  os.symlink("../../blobs/0", tmp_path / "snapshot/sub/train-0.parquet")
  os.symlink("../../blobs/gone", tmp_path / "snapshot/sub/train-1.parquet")
  os.symlink("..", tmp_path / "snapshot/sub/loop")
  assert take(tmp_path / "snapshot")[0] == [
    "sub/train-0.parquet",
    "sub/train-1.parquet",
  ]
  with pytest.raises(
    InputError, match=r"train-1.parquet: the pool file does not exist"
  ):
    pool_check.check_pool(
      [str(tmp_path / "snapshot")], None, make_encoder(), 9, tmp_path / "o"
    )


def test_a_folder_without_a_pool(tmp_path):
  with pytest.raises(InputError, match="a folder without"):
    take(tmp_path)
  make(tmp_path, "dataset_info.json", "a.csv", "b/c.zip")
  with pytest.raises(InputError, match=r"it holds a.csv, b/c.zip"):
    take(tmp_path)


def test_the_check_names_what_is_left_out(tmp_path):
  for number, name in enumerate(("train", "test", "dev")):
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(make_record(number)) + "\n")
  data, out = [str(tmp_path)], tmp_path / "out.table"
  found = pool_check.check_pool(data, None, make_encoder(), 100, out)
  assert found["rows"] == 1 and found["left_out_files"]["count"] == 2
  text = summary_text.format_summary(found)
  place = tmp_path.name
  assert f"2 files of the folders given ({place}/dev.jsonl, {place}/test.jsonl)" in text
  assert "pool.splits" in text
  found = pool_check.check_pool(data, None, make_encoder(), 100, out, splits="all")
  assert found["rows"] == 3 and "left_out_files" not in found


@pytest.mark.parametrize(
  ("path", "name"),
  [
    ("LLaVA-OneVision-Data/CLEVR-Math(MathV360K)/train-00000-of-00001.parquet",
     "CLEVR-Math(MathV360K)"),
    ("ai2d(cauldron,llava_format)/train-00000-of-00001.parquet",
     "ai2d(cauldron,llava_format)"),
    ("Cauldron/vqav2/train-00000-of-00009-1a2b3c4d5e6f7a8b.parquet", "vqav2"),
    ("hub/data/train-00000-of-00001.parquet", "hub"),
    ("hub/default/train/0000.parquet", "hub"), ("saved/train/data-0.arrow", "saved"),
    ("x/chart_qa.parquet", "chart_qa"), ("x/chart_qa_train.jsonl.gz", "chart_qa"),
    ("x/chart_qa-00003-of-00010.tar", "chart_qa"), ("x/00012.tar", "x"),
    ("datasets--org--Name/snapshots/" + "0a" * 20 + "/data/train-0.parquet", "Name"),
    ("pool/gqa-train.array_record-00000-of-00001", "gqa"), ("train.parquet", None),
    ("../data/train.parquet", None), ("x/vqav2.parquet", "vqav2"),
  ],
)  # fmt: skip
def test_what_a_file_is_named_after(path, name):
  assert splits.name_file(path) == name
