"""Small files that would become large, and files that name files elsewhere."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.formats import parquet_file
from mllm_selector_jax.models.huggingface import source
from mllm_selector_jax.models.huggingface.tokenizer_files import load_tokenizer
from mllm_selector_jax.types import InputError
from tests.models import tiny


def test_a_row_group_that_decodes_to_far_more_than_the_file(tmp_path, monkeypatch):
  path = tmp_path / "bomb.parquet"
  values = pa.DictionaryArray.from_arrays([0] * 4000, ["x" * 10_000])
  pq.write_table(pa.table({"question": values.cast(pa.string())}), path)
  assert path.stat().st_size < 50_000
  file = formats.open_file(str(path))
  assert len(file.read(7, 0).value["question"]) == 10_000
  monkeypatch.setattr(parquet_file, "LEAST_CAP", 1 << 20)
  file = formats.open_file(str(path))
  with pytest.raises(InputError, match="row group 0 decodes to more than"):
    file.read(7, 0)
  assert sum(1 for _ in file.records()) == 4000  # which hold a part of it at a time


READ = """
import resource, sys
import pyarrow
from mllm_selector_jax.data import formats
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
file, before = formats.open_file(sys.argv[1]), peak()
print(sum(len(record.value["question"]) for record in file.records()))
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["dictionary", "dictionary type", "arrow"])
def test_rows_that_share_a_long_value_are_read_a_few_at_a_time(tmp_path, kind):
  rows, size = 600, 8 << 20  # 4.7 GB when each row has its own
  path = str(tmp_path / ("bomb.arrow" if kind == "arrow" else "bomb.parquet"))
  value = pa.array(["x" * size])
  shared = pa.DictionaryArray.from_arrays(pa.array([0] * rows), value)
  table = pa.table({"question": shared})
  if kind == "arrow":
    with pa.ipc.new_file(path, table.schema) as writer:
      writer.write_table(table)
  else:
    pq.write_table(table, path, store_schema=kind == "dictionary type")
  if kind != "arrow":
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
  command = [sys.executable, "-c", READ, path]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  read, peak = map(int, done.stdout.split())
  assert read == rows * size and peak < 1 << 20, peak  # kilobytes


def test_rows_that_share_a_long_beginning_are_read_a_few_at_a_time(
  tmp_path, monkeypatch
):
  path = tmp_path / "bomb.parquet"
  table = pa.table({"question": ["x" * 100_000] * 200})
  coded = {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}
  pq.write_table(table, path, **coded)
  monkeypatch.setattr(parquet_file, "_MOST_BATCH", 1 << 20)
  file = formats.open_file(str(path))
  assert max(batch.num_rows for batch in file._batches(0)) == 10
  assert sum(len(record.value["question"]) for record in file.records()) == 20_000_000


def test_a_json_file_of_a_model_has_a_largest_size(tmp_path, monkeypatch):
  path = tmp_path / "config.json"
  path.write_text(json.dumps({"a": "b" * 100}))
  monkeypatch.setattr(source, "MOST_JSON", 50)
  with pytest.raises(InputError, match="cannot be read as JSON: 109 bytes"):
    source.read_json(path)


@pytest.mark.parametrize("field", ["tokenizer_file", "vocab_file", "name_or_path"])
@pytest.mark.parametrize(
  "kind", ["PreTrainedTokenizerFast", "GPT2Tokenizer", "LlamaTokenizer"]
)
@pytest.mark.parametrize("left_out", [(), ("tokenizer.json",)])
def test_a_tokenizer_config_cannot_name_files_elsewhere(
  tmp_path, field, kind, left_out
):
  elsewhere, folder = tmp_path / "elsewhere", tmp_path / "base"
  core = tokenizers.Tokenizer(tokenizers.models.WordLevel({"secret": 0}, "secret"))
  elsewhere.mkdir()
  core.save(str(elsewhere / "tokenizer.json"))
  (elsewhere / "vocab.json").write_text('{"secret": 0}')
  tiny.make_tokenizer().save_pretrained(folder)
  vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
  (folder / "vocab.json").write_text(json.dumps(vocab))
  (folder / "merges.txt").write_text("#version: 0.2\n")
  for name in left_out:
    (folder / name).unlink()
  path = folder / "tokenizer_config.json"
  value = {**json.loads(path.read_text()), "tokenizer_class": kind}
  names = {"tokenizer_file": "tokenizer.json", "vocab_file": "vocab.json"}
  value[field] = str(elsewhere / names.get(field, ""))
  path.write_text(json.dumps(value))
  try:
    tokenizer = load_tokenizer(folder)
  except InputError:
    return
  assert "secret" not in tokenizer.get_vocab()
