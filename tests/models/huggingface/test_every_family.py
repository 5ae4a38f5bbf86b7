"""Exports of every family, read by this environment's transformers alone.

`benchmarks/export_matrix.py` reads the same exports in other versions as well.
"""

import json

import numpy as np
import PIL.Image
import pytest
import torch

from benchmarks import export_matrix, matrix_reader
from mllm_selector_jax.models.huggingface import tokenizer_files

torch.set_num_threads(1)
STEPS = ("tokenizer", "processor", "model", "first answer", "stop")
# Their whole processor, which makes the inputs of an answer, needs torchvision.
WITH_VIDEO = ("internvl", "llava_onevision")


@pytest.fixture(
  scope="module", params=export_matrix.FAMILIES, ids=export_matrix.describe
)
def exported(request, tmp_path_factory):
  """A folder with `source`, `out` and what we make of it."""
  folder = tmp_path_factory.mktemp("family")
  pixels = np.random.default_rng(0).integers(0, 256, (20, 47, 3), dtype=np.uint8)
  PIL.Image.fromarray(pixels).save(folder / "image.png")
  export_matrix.export(folder, request.param)
  return folder


def read(path):
  return json.loads(path.read_text())


def test_transformers_reads_it_as_we_do(exported):
  found = matrix_reader.read(exported)
  seeing = read(exported / "out/config.json")["model_type"] in WITH_VIDEO
  steps = ("tokenizer", "model") if seeing else STEPS
  assert {step: found[step] for step in steps} == dict.fromkeys(steps, "yes")


def test_transformers_4_finds_what_it_knows(exported):
  for config in exported.rglob("out/tokenizer_config.json"):
    value = read(config)
    # A list there is what 4.57 ends with "'list' object has no attribute 'keys'" at.
    assert not isinstance(value.get("extra_special_tokens"), list)
    assert value["tokenizer_class"] != "TokenizersBackend"
    if value["tokenizer_class"] == tokenizer_files.GENERIC:
      assert "token_type_ids" not in value["model_input_names"]
    assert not set(value) & set(tokenizer_files.LOADING)
    assert (config.parent / "tokenizer.json").is_file()
  names = {path.name for path in (exported / "out").iterdir()}
  assert {"chat_template.jinja", "processor_config.json"} <= names
  assert "chat_template.json" not in names


def test_what_is_special_stays_special_under_its_id(exported):
  source = tokenizer_files.load_tokenizer(exported / "source")
  ours = tokenizer_files.load_tokenizer(exported / "out")
  for token in {*source.all_special_tokens, *source.added_tokens_encoder}:
    wanted = source.convert_tokens_to_ids(token)
    assert ours(token, add_special_tokens=False)["input_ids"] == [wanted]
    special = source.added_tokens_decoder[wanted].special
    assert ours.added_tokens_decoder[wanted].special == special
  assert set(ours.all_special_tokens) >= set(source.all_special_tokens)


def test_an_export_of_an_export_has_the_same_files(exported, tmp_path):
  from mllm_selector_jax.models import huggingface

  out = exported / "out"
  config = huggingface.read_config(out)
  huggingface.write_model(tmp_path, config, huggingface.read_params(out, config), out)
  first, second = (
    {path.name: path.read_bytes() for path in folder.iterdir()}
    for folder in (out, tmp_path)
  )
  assert first == second
