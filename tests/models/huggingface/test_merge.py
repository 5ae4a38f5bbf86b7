"""Adapters: named, merged by the command that is told, and then read."""

import json

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from mllm_selector_jax.models import huggingface, lora
from mllm_selector_jax.models.huggingface import merge_adapter
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.types import InputError
from tests.models import packed, tiny, torch_inputs
from tests.models.huggingface import bases, loose
from tests.models.huggingface.parity_cases import CASES

torch.set_num_threads(1)


def follow(message, out):
  """Runs the command that a message ends with."""
  words = message.split("python -m ")[1].split()
  assert words[0] == merge_adapter.__name__ and words[2] == "OUT"
  return merge_adapter.main([words[1], str(out)])


def refused(folder):
  with pytest.raises(InputError) as error:
    huggingface.read_config(folder)
  return str(error.value)


@pytest.mark.parametrize(
  "chosen",
  [CASES["grouped"], CASES["qwen2 tied, siglip"], torch_inputs.TILED["gemma3"]],
  ids=["grouped", "qwen2 tied, siglip", "whole gemma3"],
)
def test_an_adapter_of_ours_is_merged_as_we_merge_it(tmp_path, chosen):
  base = tiny.make_base(tmp_path / "base", **chosen)
  config = huggingface.read_config(base)
  params = huggingface.read_params(base, config)
  config = packed.dataclasses.replace(config, lora=LoraConfig(rank=4, alpha=6.0))
  noise = packed.random_params(config, seed=1)
  params |= {"adapter": noise["adapter"], "projector": noise["projector"]}
  adapter, out = tmp_path / "adapter", tmp_path / "merged"
  huggingface.write_adapter(adapter, config, params, str(base))
  message = refused(adapter)
  assert "is an adapter for peft" in message and str(base) in message
  assert follow(message, out) == 0
  plain, merged = lora.merge(config, params)
  assert huggingface.read_config(out) == plain
  found = huggingface.read_params(out, plain)
  packed.jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, merged
  )
  assert huggingface.read_processor(out)[1] == huggingface.read_processor(base)[1]


def save_llava_lora(folder, decoder, tower, pickled):
  """What LLaVA's finetune_lora.sh leaves; returns the projector that it trained."""
  loose.save_original(folder, tower)
  for path in (*folder.glob("*token*"), folder / "model.safetensors"):
    path.unlink()
  kind = peft.LoraConfig(
    r=4,
    lora_alpha=8,
    target_modules=["q_proj", "v_proj", "down_proj"],
    task_type="CAUSAL_LM",
  )
  model = transformers.AutoModelForCausalLM.from_pretrained(decoder)
  model = peft.get_peft_model(model, kind)
  torch.manual_seed(3)
  for name, parameter in model.named_parameters():
    if "lora_" in name:  # B is zero at first
      torch.nn.init.normal_(parameter, std=0.3)
  model.peft_config["default"].base_model_name_or_path = str(decoder)
  model.save_pretrained(folder / "adapter")
  for path in (folder / "adapter").glob("adapter*"):
    path.rename(folder / path.name)
  torch.manual_seed(2)
  projector = {
    f"base_model.model.model.mm_projector.{n}.{kind}": torch.randn(shape) / 6
    for n in (0, 2)
    for kind, shape in (("weight", (32, 32)), ("bias", (32,)))
  }
  torch.save(projector, folder / "non_lora_trainables.bin")
  if pickled:
    torch.save(
      load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin"
    )
    (folder / "adapter_model.safetensors").unlink()
  return model.merge_and_unload(), projector


@pytest.mark.parametrize("pickled", [False, True])
def test_llava_s_lora_folder_becomes_one_of_its_own_checkpoints(tmp_path, pickled):
  decoder, tower = tmp_path / "vicuna", tmp_path / "clip"
  folder, out = tmp_path / "llava-lora", tmp_path / "llava-merged"
  loose.save_decoder(decoder)
  loose.save_tower(tower)
  whole, projector = save_llava_lora(folder, decoder, tower, pickled)
  message = refused(folder)
  assert "is what LLaVA's LoRA training writes" in message and str(decoder) in message
  assert follow(message, out) == 0
  config = huggingface.read_config(out)
  params = huggingface.read_params(out, config)
  query = whole.model.layers[1].self_attn.q_proj.weight.detach().numpy()
  np.testing.assert_allclose(
    np.asarray(params["decoder"]["layers"]["query"]["kernel"][1]).T, query, atol=1e-6
  )
  first = projector["base_model.model.model.mm_projector.0.weight"].numpy()
  np.testing.assert_array_equal(
    np.asarray(params["projector"]["first"]["kernel"]).T, first
  )
  huggingface.assemble(tmp_path / "hf", out)
  assert huggingface.read_config(tmp_path / "hf").patches == 16


def test_what_is_missing_is_named(base, tmp_path, capsys):
  adapter, out = tmp_path / "adapter", tmp_path / "out"
  adapter.mkdir()
  assert merge_adapter.main([str(adapter), str(out)]) == 2
  assert "there is no adapter_config.json" in capsys.readouterr().err
  (adapter / "non_lora_trainables.bin").write_bytes(b"")
  assert "no adapter_config.json: fetch the whole folder" in refused(adapter)
  (adapter / "non_lora_trainables.bin").unlink()
  (adapter / "adapter_config.json").write_text("{}")
  assert "another model" in refused(adapter)
  assert merge_adapter.main([str(adapter), str(out)]) == 2
  assert "names no base; give --base=DIR" in capsys.readouterr().err
  value = {"base_model_name_or_path": "/no/where"}
  (adapter / "adapter_config.json").write_text(json.dumps(value))
  assert merge_adapter.main([str(adapter), str(out)]) == 2
  assert "no directory /no/where" in capsys.readouterr().err
  assert merge_adapter.main([str(adapter), str(out), f"--base={base}"]) == 2
  said = capsys.readouterr().err
  assert "neither adapter_model.safetensors nor adapter_model.bin" in said
  assert not out.exists() and not list(tmp_path.glob("*.part"))


def test_an_adapter_beside_whole_weights_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  (folder / "adapter_config.json").write_text("{}")
  assert huggingface.read_config(folder) == huggingface.read_config(base)
  (folder / "adapter_model.safetensors").write_bytes(b"")
  assert "not a whole model" in refused(folder)
