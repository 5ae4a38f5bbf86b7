"""Folders that people have and that are no base: what is said, and whether it helps."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from mllm_selector_jax import main
from mllm_selector_jax.data.tokens import template_likeness
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import processor, tokenizer_files
from mllm_selector_jax.models.huggingface.other_models import OTHERS
from mllm_selector_jax.types import InputError
from tests import tokenizers_on_the_spot
from tests.models import tiny
from tests.models.huggingface import bases, loose

CODE = "import sys\nsys.modules['remote_code_ran'] = sys\n"


def refused(call, *arguments):
  """The one message; no flag that does not exist is in it."""
  with pytest.raises(InputError) as error:
    call(*arguments)
  assert "trust_remote_code" not in str(error.value)
  return str(error.value)


def write_json(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


QUANTISED = [
  ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits"),
  ({"load_in_8bit": True}, "bitsandbytes, 8 bits"),
  ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "(fp8)"),
  ({"quant_method": "gptq", "bits": 4}, "gptq, 4 bits"),
  ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
]


@pytest.mark.parametrize("inside", [None, "text_config"])
@pytest.mark.parametrize(("settings", "words"), QUANTISED)
def test_quantised_weights_are_named_by_their_config(
  base, tmp_path, settings, words, inside
):
  folder = bases.copy(base, tmp_path / "x")

  def change(config):
    (config if inside is None else config[inside])["quantization_config"] = settings

  bases.edit_json(folder / "config.json", change)
  bases.edit_tensors(folder, lambda x: x.update(more=np.zeros(3, "u1")))
  message = refused(huggingface.read_config, folder)
  assert "quantised weights" in message and words in message
  assert "give the model that it was quantised from" in message


def test_weights_that_were_dequantised_are_read(base, tmp_path):
  # The note of it stays in config.json where a merge or a conversion forgets it.
  folder = bases.copy(base, tmp_path / "x")
  settings = {"quantization_config": QUANTISED[0][0]}
  bases.edit_json(folder / "config.json", lambda config: config.update(settings))
  config = huggingface.read_config(folder)
  assert config == huggingface.read_config(base)
  huggingface.check_weights(folder, config)


@pytest.mark.parametrize(
  ("name", "tensor"),
  [
    ("qweight", torch.zeros(2, 2, dtype=torch.int32)),
    ("weight.absmax", torch.zeros(3)),
    ("weight", torch.zeros(48, 32).to(torch.float8_e4m3fn)),
    ("weight", torch.zeros(48, 32, dtype=torch.int8)),
  ],
)
def test_quantised_weights_are_named_by_their_tensors(base, tmp_path, name, tensor):
  folder = bases.copy(base, tmp_path / "x")
  path = folder / "model.safetensors"
  tensors = safetensors.torch.load_file(path)
  key = "language_model.model.layers.1.mlp.gate_proj."
  del tensors[f"{key}weight"]
  safetensors.torch.save_file({**tensors, key + name: tensor}, path)
  config = huggingface.read_config(folder)
  message = refused(huggingface.check_weights, folder, config)
  assert f"has quantised weights: 1 of {len(tensors) + 1} tensors" in message
  assert key + name in message and "\n" not in message


def test_a_gguf_model_is_named(tmp_path):
  path = tmp_path / "x/llava-Q4_K_M.gguf"
  path.parent.mkdir()
  path.write_bytes(b"GGUF")
  for given in (path, path.parent):
    message = refused(huggingface.read_config, given)
    assert "llama.cpp" in message and "float" in message


def test_a_language_model_is_told_to_be_assembled(tmp_path, capsys):
  decoder, tower, out = tmp_path / "llama", tmp_path / "clip", tmp_path / "out"
  loose.save_decoder(decoder)
  loose.save_tower(tower)
  message = refused(huggingface.read_config, decoder)
  assert "'llama', a language model without a vision tower" in message
  command = message.split("both: ")[1].rstrip(".")
  assert "assemble" in refused(huggingface.read_config, tower)
  # What is told to do helps.
  command = command.replace("openai/clip-vit-large-patch14-336", str(tower))
  assert main.run(command.replace("--out=DIR", f"--out={out}").split()) == 0
  assert huggingface.read_config(out).patches == 16
  capsys.readouterr()


@pytest.mark.parametrize("kind", OTHERS)
def test_a_known_family_is_refused_for_what_it_has(tmp_path, kind):
  write_json(tmp_path / "config.json", {"model_type": kind, "vision_config": {}})
  message = refused(huggingface.read_config, tmp_path)
  assert f"model_type is {kind!r}, {OTHERS[kind]} (docs/families.md)" in message


@pytest.mark.parametrize(
  ("config", "words"),
  [
    ({"model_type": "git", "vision_config": {}}, "a vision-language family"),
    ({"model_type": "qwen", "visual": {}}, "a vision-language family"),
    ({"model_type": "siglip", "vision_config": {}}, "a vision tower alone"),
    ({"model_type": "gemma"}, "supported are 'llava'"),
    ({}, "model_type is None"),
  ],
)
def test_another_type_is_named(tmp_path, config, words):
  write_json(tmp_path / "config.json", {"hidden_size": 4, **config})
  message = refused(huggingface.read_config, tmp_path)
  assert words in message and repr(config.get("model_type")) in message
  if "siglip" not in message:
    assert "supported are 'llava'" in message and "llama, mistral, qwen2" in message


@pytest.mark.parametrize(
  ("kind", "words"),
  [
    ("qwen2_5_omni", "takes and gives audio; qwen2_5_vl can be run"),
    ("qwen3_5_moe", "many experts; the dense models, qwen3_5, can be run"),
    ("glm4v_moe", "GLM-4.5V, whose decoder sends each token to a few of many experts"),
    ("paligemma", "so that rows of one image cannot share it; gemma3 can be run"),
    ("pixtral", "a Pixtral tower alone, which can be run only as a part of"),
  ],
)
def test_relatives_are_refused_with_the_reason(tmp_path, kind, words):
  write_json(tmp_path / "config.json", {"model_type": kind, "vision_config": {}})
  message = refused(huggingface.read_config, tmp_path)
  assert words in message and repr(kind) in message


@pytest.mark.parametrize("inside", ["hf", "snapshots/0123abc"])
def test_the_folder_above_a_model_names_the_one_below(base, tmp_path, inside):
  bases.copy(base, tmp_path / "x" / inside)
  message = refused(huggingface.read_config, tmp_path / "x")
  below = message.split("give ")[1].rstrip(".")
  assert huggingface.read_config(below) == huggingface.read_config(base)


def add_code(folder, name, change, reference):
  (folder / "remote.py").write_text(CODE)
  bases.edit_json(folder / name, lambda value: value.update(change, auto_map=reference))


def test_an_image_processor_of_code_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  name = "preprocessor_config.json"
  code = {"AutoImageProcessor": "remote.Processor"}
  add_code(folder, name, {"image_processor_type": "OwnProcessor"}, code)
  message = refused(processor.load_image_processor, folder)
  assert name in message and "remote.Processor" in message and "never runs" in message
  # What is told to do helps.
  (folder / name).write_bytes((base / name).read_bytes())
  assert huggingface.read_processor(folder)[1] == huggingface.read_processor(base)[1]


def test_a_tokenizer_of_code_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  (folder / "tokenizer.json").unlink()
  code = {"AutoTokenizer": ["remote.Tokenizer", None]}
  change = {"tokenizer_class": "OwnTokenizer"}
  add_code(folder, "tokenizer_config.json", change, code)
  message = refused(tokenizer_files.load_tokenizer, folder)
  assert "remote.Tokenizer" in message and "never runs" in message


def test_a_decoder_of_code_is_named(tmp_path):
  loose.save_decoder(tmp_path / "decoder")
  loose.save_tower(tmp_path / "clip")
  code = {"AutoConfig": "remote.Config", "AutoModelForCausalLM": "remote.Model"}
  add_code(tmp_path / "decoder", "config.json", {"model_type": "internlm9"}, code)
  folders = (tmp_path / "out", tmp_path / "decoder", tmp_path / "clip")
  message = refused(huggingface.assemble, *folders)
  assert "remote.Config" in message and "never runs" in message


CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
  "{{ '<|im_end|>\n' }}{% endfor %}"
)
MARKED = (*tiny.SPECIAL, "<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
  ("template", "special", "chosen", "told"),
  [
    (CHATML, MARKED, "vicuna_v1", "chatml"),
    (CHATML, MARKED, "llama-2", "chatml"),
    (CHATML, tiny.SPECIAL, "vicuna_v1", "chat"),  # it has no such tokens
    ("<|start_header_id|>user", MARKED, "vicuna_v1", "chat"),
    ("[INST] {{ messages }}", MARKED, "vicuna_v1", "llama-2"),
    ("USER: ASSISTANT: ", MARKED, "chatml", "vicuna_v1"),
    (CHATML, MARKED, "chatml", None),
    (CHATML, MARKED, "chat", None),
    (CHATML, MARKED, "plain", None),
    ("USER: ASSISTANT: ", MARKED, "vicuna_v1", None),
    ("### Human: ", MARKED, "vicuna_v1", None),
    (None, MARKED, "vicuna_v1", None),
  ],
)
def test_another_template_than_the_base_s_own_is_told(template, special, chosen, told):
  tokenizer = tiny.make_tokenizer(300, special)
  tokenizer.chat_template = template
  found = template_likeness.describe_other(chosen, tokenizer)
  assert (found is None) == (told is None)
  if told is not None:
    assert found.endswith(f"--config.model.conversation={told}.")
    assert repr(chosen) in found


def test_an_older_chat_template_file_is_the_base_s_own(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  tiny.make_tokenizer(300, MARKED).save_pretrained(folder)
  write_json(folder / "chat_template.json", {"chat_template": CHATML})
  tokenizer, _ = huggingface.read_processor(folder)
  assert tokenizer.chat_template == CHATML
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  huggingface.write_model(tmp_path / "out", config, params, folder)
  assert (tmp_path / "out/chat_template.jinja").read_text() == CHATML
  assert not (tmp_path / "out/chat_template.json").exists()
  # The newer file goes before the older one.
  (folder / "chat_template.jinja").write_text("newer")
  assert huggingface.read_processor(folder)[0].chat_template == "newer"
  (folder / "chat_template.jinja").unlink()
  write_json(folder / "chat_template.json", {"chat_template": None})
  assert "no text under chat_template" in refused(huggingface.read_processor, folder)


def test_the_tokenizer_of_a_tokenizer_model_has_it_too(tmp_path):
  tokenizers_on_the_spot.write_sentencepiece(tmp_path)
  write_json(tmp_path / "chat_template.json", {"chat_template": CHATML})
  assert tokenizer_files.load_tokenizer(tmp_path).chat_template == CHATML
