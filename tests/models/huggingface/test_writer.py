import json

import jax
import numpy as np
import pytest

from mllm_selector_jax.models import huggingface
from tests.models import packed, tiny
from tests.models.huggingface import bases


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("tied", [False, True])
def test_what_was_written_is_read_bit_for_bit(tmp_path, tied):
  base = tiny.make_base(tmp_path / "base", tie_word_embeddings=tied)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "out", config, params, base)
  assert huggingface.read_config(tmp_path / "out") == config
  found = huggingface.read_params(tmp_path / "out", config)
  jax.tree.map(np.testing.assert_array_equal, found, params)
  assert (
    huggingface.read_processor(tmp_path / "out")[1]
    == (huggingface.read_processor(base)[1])
  )


def test_equal_input_gives_equal_bytes(base, tmp_path):
  config = huggingface.read_config(base)
  params = huggingface.read_params(base, config)
  huggingface.write_model(tmp_path / "one", config, params, base)
  huggingface.write_model(tmp_path / "two", config, params, base)
  assert contents(tmp_path / "one") == contents(tmp_path / "two")
  # An export of what was read is the base itself, and its export it again.
  assert contents(tmp_path / "one") == contents(base)
  assert contents(tiny.make_base(tmp_path / "three")) == contents(base)


def test_the_config_has_the_names_of_both_versions(base):
  config = json.loads((base / "config.json").read_text())
  text = config["text_config"]
  assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == 10000.0
  assert config["dtype"] == config["torch_dtype"] == "float32"
  assert config["architectures"] == ["LlavaForConditionalGeneration"]
  assert "transformers_version" not in json.dumps(config)
  processor = json.loads((base / "processor_config.json").read_text())
  assert processor["num_additional_image_tokens"] == 1
  options = json.loads((base / "preprocessor_config.json").read_text())
  assert options["image_processor_type"] == "LlavaImageProcessor"
  assert options["do_pad"] is True


def test_files_of_the_source_are_carried_over(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  carried = {
    "chat_template.jinja": "{{ messages }}",
    "LICENSE": "free",
  }
  for name, text in carried.items():
    (folder / name).write_text(text)
  (folder / "notes.py").write_text("1 / 0")
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  huggingface.write_model(tmp_path / "out", config, params, folder)
  for name, text in carried.items():
    assert (tmp_path / "out" / name).read_text() == text
  assert not (tmp_path / "out" / "notes.py").exists()


def test_the_v4_names_are_written(base):
  names = set(bases.read_tensors(base))
  assert "vision_tower.vision_model.encoder.layers.1.self_attn.q_proj.bias" in names
  assert "vision_tower.vision_model.post_layernorm.weight" in names
  assert "language_model.model.layers.0.self_attn.o_proj.weight" in names
  assert "language_model.lm_head.weight" in names
  assert "multi_modal_projector.linear_2.weight" in names


def test_a_source_of_transformers_5_gets_a_processor_for_4(base, tmp_path):
  import transformers

  folder = bases.copy(base, tmp_path / "x")
  (folder / "preprocessor_config.json").unlink()
  transformers.LlavaProcessor(
    tiny.make_image_processor(), transformers.AutoTokenizer.from_pretrained(base)
  ).save_pretrained(folder)
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  huggingface.write_model(tmp_path / "out", config, params, folder)
  wanted = contents(base)
  for name in ("preprocessor_config.json", "processor_config.json"):
    assert contents(tmp_path / "out")[name] == wanted[name]


def test_the_exported_processor_counts_the_image_tokens(base):
  import PIL.Image
  import transformers

  processor = transformers.LlavaProcessor(
    transformers.AutoImageProcessor.from_pretrained(base, backend="pil"),
    transformers.AutoTokenizer.from_pretrained(base),
    **{
      key: value
      for key, value in json.loads((base / "processor_config.json").read_text()).items()
      if key != "processor_class"
    },
  )
  image = PIL.Image.new("RGB", (40, 20))
  out = processor(images=image, text="<image>\nWhat?", return_tensors="np")
  assert (np.asarray(out["input_ids"]) == 4).sum() == 16
