"""An exported adapter on the base in torch, through peft."""

import json

import numpy as np
import peft
import pytest
import torch

from mllm_selector_jax.models import huggingface, lora
from mllm_selector_jax.models.config import LoraConfig
from tests.models import packed, tiny
from tests.models.huggingface.test_parity import CASES, assert_agree, load_torch

torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["grouped", "qwen2 tied, siglip", "vipllava"])
def test_peft_agrees_on_the_adapter_and_on_its_merge(tmp_path, name):
  base = tiny.make_base(tmp_path / "base", **CASES[name])
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "start", config, params, base)
  # The projector is tuned, too; all else of the base stays.
  config = packed.dataclasses.replace(config, lora=LoraConfig(rank=4, alpha=6.0))
  noise = packed.random_params(config, seed=1)
  params |= {"adapter": noise["adapter"], "projector": noise["projector"]}
  huggingface.write_adapter(tmp_path / "adapter", config, params, "the/base")
  model = peft.PeftModel.from_pretrained(
    load_torch(tmp_path / "start"), tmp_path / "adapter"
  ).eval()
  adapted = {n for n, _ in model.named_parameters() if "lora_" in n}
  assert len(adapted) == 2 * 7 * config.decoder.layers
  assert not any("vision" in name for name in adapted)
  assert_agree(model, config, params)
  # Merged by us and by peft.
  base_config, merged = lora.merge(config, params)
  huggingface.write_model(tmp_path / "merged", base_config, merged, base)
  whole = load_torch(tmp_path / "merged")
  assert_agree(whole, base_config, merged)
  theirs = model.merge_and_unload().state_dict()
  ours = whole.state_dict()
  assert ours.keys() == theirs.keys()
  for key, tensor in ours.items():
    np.testing.assert_allclose(tensor, theirs[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_peft_loads_the_newline_too(tmp_path):
  base = tiny.make_base(tmp_path / "base", family="llava_next", decoder="qwen3")
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "start", config, params, base)
  config = packed.dataclasses.replace(config, lora=LoraConfig(rank=4, alpha=6.0))
  noise = packed.random_params(config, seed=1)
  params |= {"adapter": noise["adapter"], "projector": noise["projector"]}
  huggingface.write_adapter(tmp_path / "adapter", config, params, "the/base")
  model = peft.PeftModel.from_pretrained(
    load_torch(tmp_path / "start"), tmp_path / "adapter"
  )
  base_config, merged = lora.merge(config, params)
  huggingface.write_model(tmp_path / "merged", base_config, merged, base)
  ours = load_torch(tmp_path / "merged").state_dict()
  theirs = model.merge_and_unload().state_dict()
  assert ours.keys() == theirs.keys() and "model.image_newline" in ours
  for key, tensor in ours.items():
    np.testing.assert_allclose(tensor, theirs[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_the_directory_says_what_it_is_of(tmp_path):
  config = packed.make_config(lora=LoraConfig(rank=2, alpha=8.0))
  params = packed.random_params(config)
  for folder in ("one", "two"):
    huggingface.write_adapter(tmp_path / folder, config, params, "some/base")
  said = json.loads((tmp_path / "one/adapter_config.json").read_text())
  assert (said["r"], said["lora_alpha"]) == (2, 8.0)
  assert said["base_model_name_or_path"] == "some/base"
  assert {path.name for path in (tmp_path / "one").iterdir()} == {
    "adapter_config.json",
    "adapter_model.safetensors",
  }
  for name in ("adapter_config.json", "adapter_model.safetensors"):
    one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
    assert one == two
