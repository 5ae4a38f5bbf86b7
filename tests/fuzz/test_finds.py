"""What fuzzing has found, each as a test of its whole kind."""

import io
import json
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax import command_line, storage
from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.files import mixture
from mllm_selector_jax.data.formats import pool_file
from mllm_selector_jax.data.images.decoding import decode_image
from mllm_selector_jax.data.pool import sources
from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.inputs import given_shares, lists
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.planning import described_pool, pool_figures
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.scoring import score_table
from mllm_selector_jax.types import InputError, Record, RowError
from tests.evaluation.published import layouts
from tests.fixed_images import fixed_images
from tests.fuzz import list_kinds, setting_kinds
from tests.models import tiny
from tests.models.huggingface import bases

DEEP = "[" * 3000 + "]" * 3000


def test_deep_json_is_refused_in_every_file(tmp_path):
  path = tmp_path / "deep.json"
  path.write_text(DEEP)
  with pytest.raises(InputError, match="incomplete JSON"):
    lists.read_references(str(path), "select.force_in")
  with pytest.raises(InputError, match="neither JSON"):
    given_shares.read_shares(str(path))
  with pytest.raises(InputError, match="cannot be read as JSON"):
    pool_figures._read_json(path)
  # In a record, it may be the name of an image in brackets.
  record = Record(0, 0, {"image": DEEP, "question": "q", "answer": "a"})
  (picture,) = record_schemas.read_content(record).pictures
  assert picture.name == DEEP


def test_a_line_of_csv_with_more_fields_than_the_header(tmp_path):
  path = tmp_path / "ids.csv"
  path.write_text("id,row\na,0\nb,1,c\n")
  with pytest.raises(InputError, match="entry 1 has more fields"):
    lists.read_references(str(path), "select.force_in")


@pytest.mark.parametrize(
  ("header", "words"),
  [(b"{'descr' 1 (", "damaged"), (b"x\0", "damaged"), (None, "an array of int64")],
)
def test_embeddings_with_a_hostile_header(tmp_path, header, words):
  list_kinds.write_scores(tmp_path, 0)
  path = tmp_path / "embeddings" / "part-00000.npy"
  np.save(path, np.arange(6))
  if header is not None:
    data = bytearray(path.read_bytes())
    data[10 : 10 + len(header)] = header
    path.write_bytes(data)
  with pytest.raises(InputError, match=words):
    list_kinds.read_scores(tmp_path)
  assert score_table.list_columns(tmp_path)


@pytest.mark.parametrize(
  "change",
  [
    {"config": 3},
    {"config": {"strategy": ["kl"]}},
    {"hashes": ["a"]},
    {"hashes": {"../../etc/hostname": "0"}},
    {"hashes": {"/etc/hostname": "0"}},
  ],
)
def test_a_card_with_values_of_other_kinds(tmp_path, change):
  list_kinds.write_card(tmp_path, 0)
  path = tmp_path / "card.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
  with pytest.raises(InputError, match="card"):
    list_kinds.read_card(tmp_path)


def test_questions_that_are_no_text(tmp_path):
  path = tmp_path / "a.tsv"
  path.write_bytes(b"index\t\xff\xfe\n1\ta\n")
  with pytest.raises(InputError, match="not tab-separated text"):
    tasks.read_questions(f"mmbench:{path}")
  problems, splits = tmp_path / "problems.json", tmp_path / "pid_splits.json"
  problems.write_text('{"1": {}}')
  splits.write_text('{"test": [["1"]]}')
  with pytest.raises(InputError, match="expected the test split's ids"):
    tasks.read_questions(f"scienceqa:{problems},{splits}")


@pytest.mark.parametrize("file", ["questions", "annotations"])
@pytest.mark.parametrize("wrong", [[1], {"a": 1}])
def test_ids_of_questions_that_are_no_labels(tmp_path, file, wrong):
  paths = layouts.write_vqav2(tmp_path)
  path = next(path for path in paths if file in path)
  bases.edit_json(Path(path), lambda value: value[file][0].update(question_id=wrong))
  questions, aside = tasks.read_questions(f"vqav2:{','.join(paths)}")
  assert (len(questions), len(aside)) == (1, 1)


def test_a_score_table_with_a_name_that_is_no_text(tmp_path):
  list_kinds.write_scores(tmp_path, 0)
  path = tmp_path / "part-00000.parquet"
  path.write_bytes(path.read_bytes().replace(b"entropy", b"entr\xf4py"))
  with pytest.raises(InputError, match="is damaged, or no score table"):
    list_kinds.read_scores(tmp_path)


def test_a_config_without_a_name_is_one_message():
  with pytest.raises(InputError, match="The config could not be read"):
    command_line.parse(["x", "check", "--config", "--workdir=w"])


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      'cfg.tune.epochs = "many"',
      "line 4: TypeError: Could not override field 'epochs'",
    ),
    ('raise ValueError("one\\ntwo")', "line 4: ValueError: one two"),
  ],
)
def test_an_error_in_a_config_file_is_told_with_its_line(tmp_path, change, words):
  path = tmp_path / "own.py"
  path.write_text(
    "from mllm_selector_jax.configs import demo\ndef get_config():\n"
    f"  cfg = demo.get_config()\n  {change}\n  return cfg\n"
  )
  with pytest.raises(InputError) as told:
    command_line.parse(["x", "check", f"--config={path}", "--workdir=w"])
  assert f"--config={path}, {words}" in str(told.value)
  assert "Traceback" not in str(told.value)


def test_summaries_that_do_not_add_up(tmp_path):
  setting_kinds.write_summary(tmp_path, 0)
  summary = json.loads((tmp_path / "pool_summary.json").read_text())
  layout = fixed_images(4, 16).lay_out(64, 48)
  for change in (
    {"ok": 10**12},
    {"ok": summary["ok"] + 1},
    {"images": {"bytes": None}},
    {"images": summary["images"] | {"distinct": 1e308}},
    {"images": summary["images"] | {"distinct": -1}},
    {"images": summary["images"] | {"tokens": 1e308}},
    {"images": summary["images"] | {"tiles": -1}},
  ):
    with pytest.raises(InputError, match="is no summary of a checked pool"):
      described_pool.describe_summary({**summary, **change}, layout, "s.json")


def test_a_config_file_with_a_key_that_does_not_exist(tmp_path):
  path = tmp_path / "own.py"
  path.write_text(setting_kinds.CONFIG.replace("select.budget", "select.budgte"))
  with pytest.raises(
    InputError, match="it sets budgte, and there is no such key"
  ) as told:
    command_line.parse(["x", "check", f"--config={path}", "--workdir=w"])
  assert "budget?" in str(told.value) and len(str(told.value)) < 300


def test_a_broken_image_is_told_of_alike_in_every_run():
  buffer = io.BytesIO()
  Image.new("RGB", (4, 4)).save(buffer, "PNG")
  with pytest.raises(RowError) as told:
    decode_image(buffer.getvalue()[:20])
  assert "0x" not in told.value.detail and told.value.detail


def test_a_long_name_of_terabytes_in_a_tar(tmp_path):
  info = tarfile.TarInfo("a.json")
  info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 45
  path = tmp_path / "a.tar"
  path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
  with pytest.raises(InputError, match="the tar is broken there"):
    list(formats.open_file(str(path)).records())


def test_a_message_with_half_a_character_is_logged(tmp_path):
  Console(tmp_path / "log.txt").record("a \ud800 b")
  assert "a \\ud800 b" in (tmp_path / "log.txt").read_text()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.mark.parametrize(
  ("file", "change"),
  [
    ("processor_config.json", {"image_token": ["<image>"]}),
    ("processor_config.json", {"image_token": {"content": 3}}),
    ("preprocessor_config.json", {"image_mean": 3}),
    ("preprocessor_config.json", {"rescale_factor": "1"}),
    ("preprocessor_config.json", {"image_std": ["a", "b", "c"]}),
    ("preprocessor_config.json", {"crop_size": {"height": "a", "width": []}}),
    ("preprocessor_config.json", {"size": [1, 2, 3]}),
    ("config.json", {"vision_feature_layer": "last"}),
    ("config.json", {"image_token_index": {}}),
    ("generation_config.json", {"eos_token_id": {"a": 1}}),
  ],
)
def test_fields_of_a_model_of_other_kinds(base, tmp_path, file, change):
  folder = bases.copy(base, tmp_path / "base")
  (folder / file).write_text(
    json.dumps({**json.loads((folder / file).read_text()), **change})
  )

  def read():
    tokenizer, _ = huggingface.read_processor(folder, False)
    huggingface.read_config(folder)
    huggingface.read_ends(folder, tokenizer)

  if file == "generation_config.json":
    return read()  # ids of another kind are left out
  with pytest.raises(InputError):
    read()


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize(
  ("field", "count"),
  [
    *(("num_hidden_layers", count) for count in (1001, 10**9, float("inf"))),
    *(("hidden_size", count) for count in (2**24 + 1, 2**32, 1e300, -48)),
  ],
)
def test_layers_and_sizes_that_no_model_has(base, tmp_path, part, field, count):
  folder = bases.copy(base, tmp_path / "base")
  bases.edit_json(
    folder / "config.json", lambda value: value[part].update({field: count})
  )
  with pytest.raises(InputError, match=f"{part}.{field}"):
    huggingface.read_config(folder)


@pytest.mark.parametrize("token", [{}, [3], "<image>", None, 3.5])
def test_an_image_token_that_is_no_number(base, tmp_path, token):
  folder = bases.copy(base, tmp_path / "base")
  change = {"image_token_index": token, "image_token_id": token}
  bases.edit_json(folder / "config.json", lambda value: value.update(change))
  with pytest.raises(InputError):
    huggingface.read_processor(folder)


@pytest.mark.parametrize(
  ("family", "change"),
  [
    ("qwen2_vl", {"min_pixels": 10**12, "max_pixels": 10**13, "size": None}),
    ("smolvlm", {"size": {"longest_edge": 10**6}}),
    ("llava_next", {"image_grid_pinpoints": [[10**6, 10**6]]}),
  ],
)
def test_images_cannot_be_made_huge(tmp_path, family, change):
  folder = tiny.make_base(tmp_path / "base", family=family)
  for name in ("preprocessor_config.json", "config.json"):
    bases.edit_json(folder / name, lambda value: value.update(change))
  with pytest.raises(InputError):
    huggingface.read_processor(folder)


def test_a_token_with_its_options_is_the_image_token(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")
  path = folder / "processor_config.json"
  token = {"content": "<image>", "special": True}
  path.write_text(json.dumps({**json.loads(path.read_text()), "image_token": token}))
  tokenizer, _ = huggingface.read_processor(folder)
  wanted = huggingface.read_config(folder).image_token
  assert tokenizer.convert_tokens_to_ids("<image>") == wanted


def test_a_lone_surrogate_is_written_as_json_escapes_it():
  record = types.SimpleNamespace(value={"a": "\ud800é"})
  file = types.SimpleNamespace(read=lambda offset, length: record)
  text = pool_file.PoolFile.text(file, 0, 1)
  assert json.loads(text) == record.value


def test_a_source_of_bytes_is_text():
  assert sources.as_text({"a": b"x"}) == '{"a": "b\'x\'"}'


def test_what_is_no_value_of_a_key_is_told_without_an_address():
  with pytest.raises(InputError) as caught:
    command_line.parse(
      ["x", "tune", "--config=demo", "--workdir=w", "--config.tune.epochs-2"]
    )
  assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("name", ["gs://no/a.json", "gs://no/*.json", "gs://no/{a,b}"])
def test_a_mixture_in_a_bucket_that_cannot_be_reached(tmp_path, name, monkeypatch):
  def fail(path, function):
    raise OSError(0, "ClientConnectorDNSError: Cannot connect to host", path)

  monkeypatch.setattr(storage, "_reach", fail)
  (tmp_path / "mix.yaml").write_text(f"datasets:\n  - json_path: '{name}'\n")
  for data in (name, str(tmp_path / "mix.yaml")):
    with pytest.raises(InputError, match=r"gs://no/.*: cannot be read \(ClientConn"):
      mixture.expand([data])
