"""An exported adapter on the base in torch, through peft."""

import functools
import json

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file

from mllm_selector_jax.data.packing import assembly, loader, row_packing
from mllm_selector_jax.models import huggingface, lora
from mllm_selector_jax.models.huggingface import merge_adapter
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from tests import exhaustive
from tests.models import packed, tiny, torch_inputs
from tests.models.huggingface.parity_cases import CASES
from tests.models.huggingface.test_parity import assert_agree, load_torch, run
from tests.training import toy

torch.set_num_threads(1)
EVERY = tuple(MODULES)


def assert_rows_agree(model, config, params, encoder):
  """Packed rows of 0, 1 and 3 images, against each example on its own in torch."""
  examples = dict(enumerate(torch_inputs.make_examples(encoder, 6)))
  lengths = [len(sample.tokens) for sample, _ in examples.values()]
  rows = row_packing.pack(lengths, torch_inputs.LENGTH)
  shape = toy.find_shape(config, examples, [rows], torch_inputs.LENGTH)
  batch, _ = assembly.assemble(
    loader.as_trees(rows), examples, shape, config.image_token
  )
  logits, _ = map(np.asarray, run(config, params, batch))
  for row, items in enumerate(rows):
    start = 0
    for item in items:
      sample, tiles = examples[item]
      sizes = torch_inputs.find_sizes(item)
      images = torch_inputs.make_inputs(model, config, tiles, sizes, sample.tokens)
      tokens = torch.tensor(sample.tokens[None], dtype=torch.long)
      with torch.no_grad():
        wanted = model(input_ids=tokens, **images).logits[0].numpy()
      assert wanted.std() > 0.3  # or the tolerance would say nothing
      end = start + lengths[item]
      np.testing.assert_allclose(logits[row, start:end], wanted, atol=1e-5)
      start = end


@pytest.mark.parametrize(
  ("name", "modules"),
  [
    *((name, ("decoder",)) for name in ("grouped", "qwen2 tied, siglip", "vipllava")),
    *(
      (name, EVERY)
      for name in (
        *("grouped", "qwen2 tied, siglip", "qwen3, dinov2", "internvl 6b"),
        *("phi3", "granite", "glm4"),
      )
    ),
    ("vipllava", ("decoder", "tower")),
    ("vipllava", ("projector",)),
  ],
)
def test_peft_agrees_on_the_adapter_and_on_its_merge(tmp_path, name, modules):
  base = tiny.make_base(tmp_path / "base", **CASES[name])
  assert_peft_agrees(tmp_path, base, assert_agree, modules)


@pytest.mark.parametrize(
  ("family", "modules"),
  [
    *exhaustive.choose(torch_inputs.SEVERAL, [EVERY]),
    *exhaustive.choose(torch_inputs.SEVERAL, [("decoder",)], usual=["llava_next"]),
  ],
)
def test_peft_agrees_on_rows_of_several_images(tmp_path, family, modules):
  # Two layers of it with adapters round by more than 1e-5 on some processors.
  fewer = {"num_hidden_layers": 1} if family == "smolvlm" else {}
  base = torch_inputs.make_base(tmp_path / "base", family, **fewer)
  if family in torch_inputs.BARE:
    modules = tuple(name for name in modules if name != "projector")
  encoder = torch_inputs.open_encoder(base)
  check = functools.partial(assert_rows_agree, encoder=encoder)
  named = assert_peft_agrees(tmp_path, base, check, modules)
  assert ("model.image_newline" in named) == family.startswith("llava")


def find_module(name):
  """Which of `MODULES` a layer of a model in transformers belongs to."""
  if any(part in name for part in ("projector", "merger", "connector", "embed_vision")):
    return "projector"
  decoders = ("language_model", "text_model")
  return "decoder" if any(part in name for part in decoders) else "tower"


def assert_peft_agrees(folder, base, check, modules):
  """Checks an adapter of a base, and its merge; gives the names of the tensors.

  Args:
    folder: to write the models to.
    base: the directory of the base.
    check: compares (model in torch, config, params).
    modules: that have adapters.
  """
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder / "start", config, params, base)
  # The projector is tuned, too; all else of the base stays.
  lora_config = LoraConfig(rank=4, alpha=6.0, modules=modules)
  config = packed.dataclasses.replace(config, lora=lora_config)
  noise = packed.random_params(config, seed=1)
  whole = set() if "projector" in modules else {"projector"}
  params |= {name: noise[name] for name in ("adapter", *whole)}
  huggingface.write_adapter(folder / "adapter", config, params, "the/base")
  plain = load_torch(folder / "start")
  linear = {n for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear)}
  # What is in no block has none: the embedding of patches, which most towers have as a
  # convolution, and what layers are given besides.
  outside = ("patch_embedder", "per_layer_model_projection")
  linear = {n for n in linear - {"lm_head"} if not any(part in n for part in outside)}
  wanted = {n for n in linear if find_module(n) in modules}
  model = peft.PeftModel.from_pretrained(plain, folder / "adapter").eval()
  adapted = [n.split(".lora_") for n, _ in model.named_parameters() if ".lora_" in n]
  assert {n.removeprefix("base_model.model.") for n, _ in adapted} == wanted
  assert len(adapted) == 2 * len(wanted)
  # Nothing of the file is passed over, and nothing is missing in it.
  saved = load_file(folder / "adapter/adapter_model.safetensors")
  newline = {name for name in saved if name.endswith("image_newline")}
  loaded = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
  assert loaded.keys() == saved.keys() - newline
  assert bool(newline) == (config.newline and bool(whole))
  check(model, config, params)
  # Merged by us and by peft.
  base_config, merged = lora.merge(config, params)
  huggingface.write_model(folder / "merged", base_config, merged, base)
  theirs = model.merge_and_unload().state_dict()
  ours = load_torch(folder / "merged").state_dict()
  assert ours.keys() == theirs.keys()
  for key, tensor in ours.items():
    np.testing.assert_allclose(tensor, theirs[key], rtol=1e-5, atol=1e-6, err_msg=key)
  return set(ours)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_the_newline_is_in_the_adapter_though_peft_neither_trains_nor_saves_it(
  tmp_path, family
):
  base = torch_inputs.make_base(tmp_path / "base", family)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  start, adapter = tmp_path / "start", tmp_path / "adapter"
  huggingface.write_model(start, config, params, base)
  before = params["projector"]["newline"]
  tuned = packed.dataclasses.replace(config, lora=LoraConfig(rank=2, alpha=4.0))
  noise = packed.random_params(tuned, seed=1)
  params |= {"adapter": noise["adapter"], "projector": noise["projector"]}
  newline = np.asarray(params["projector"]["newline"])
  assert np.abs(newline - before).max() > 0.1
  huggingface.write_adapter(adapter, tuned, params, str(start))
  check = functools.partial(
    assert_rows_agree, encoder=torch_inputs.open_encoder(base), config=tuned
  )
  # transformers' own way to load an adapter, and this package's merge.
  plain = load_torch(start)
  plain.load_adapter(str(adapter))
  check(plain, params=params)
  merged = load_torch(merge_adapter.merge(adapter, tmp_path / "merged"))
  check(merged, params=params)
  for model in plain, merged:
    np.testing.assert_array_equal(model.model.image_newline.detach(), newline)
  # What docs/families.md warns of.
  model = peft.PeftModel.from_pretrained(load_torch(start), adapter, is_trainable=True)
  learned = {name for name, value in model.named_parameters() if value.requires_grad}
  assert learned and not any("image_newline" in name for name in learned)
  with model.disable_adapter():
    found = model.base_model.model.model.image_newline
    np.testing.assert_array_equal(found.detach(), newline)
  model.save_pretrained(tmp_path / "again")
  saved = load_file(tmp_path / "again/adapter_model.safetensors")
  assert saved and not any("image_newline" in name for name in saved)
  # Without it the logits are others: the checks above would see that it is lost.
  with torch.no_grad():
    merged.model.image_newline.copy_(torch.tensor(np.asarray(before)))
  with pytest.raises(AssertionError):
    check(merged, params=params)


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
