"""Twenty steps beside torch with transformers and peft: the same data and recipe."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import peft
import pytest
import torch

from mllm_selector_jax import sharding
from mllm_selector_jax.data.packing import row_packing
from mllm_selector_jax.models import huggingface, mllm
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from mllm_selector_jax.training import loop
from mllm_selector_jax.training.optimizer_options import OptimizerOptions
from tests import exhaustive
from tests.models import packed, tiny, torch_inputs
from tests.models.huggingface.test_parity import load_torch
from tests.training import toy

torch.set_num_threads(1)
STEPS = 20
# What has adapters, by what is trained.
ADAPTED = {
  "lora": ("decoder",),
  "lora and tower": ("decoder", "tower"),
  "lora of all": tuple(MODULES),
}
# Names of what projects.
PROJECTOR = ("multi_modal_projector", "image_newline", ".merger.", "deepstack_merger")
PROJECTOR += ("connector", "visual.downsample", "embed_vision")
TOWERS = ("vision_tower.", "visual.", "vision_model.")
RECIPE = OptimizerOptions(
  2e-2, warmup=0.1, weight_decay=0.05, clip=0.5, projector_learning_rate=2e-3
)
# Sizes of toy.CONFIG, whose samples are read.
SIZES = {
  "vocab_size": 320,
  "hidden_size": 16,
  "intermediate_size": 32,
  "vision_hidden_size": 16,
  "vision_intermediate_size": 32,
  "vision_image_size": 8,
  "vision_patch_size": 4,
}


# At the rate above, rounding of the parameters of these grows to a thousandth of a loss
# within twenty steps, here as in torch, where all of the model is trained.
SLOWER = dataclasses.replace(RECIPE, learning_rate=4e-3)
RECIPES = {("qwen3_5", "all"): SLOWER}


def torch_losses(model, samples, inputs, steps, recipe):
  """Losses of HF Trainer's and LLaVA's recipe, written with torch's own parts.

  Args:
    model: in torch; what requires a gradient is trained.
    samples: by number, with their tiles.
    inputs: the images of each, as the model takes them.
    steps: the numbers of each step's packed rows.
    recipe: of the optimizer.
  """
  groups = {}
  for name, parameter in model.named_parameters():
    if parameter.requires_grad:
      projects = any(part in name for part in PROJECTOR)
      key = (projects, parameter.ndim >= 2)
      groups.setdefault(key, []).append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {
        "params": parameters,
        "lr": recipe.projector_learning_rate if projector else recipe.learning_rate,
        "weight_decay": recipe.weight_decay if decayed else 0.0,
      }
      for (projector, decayed), parameters in groups.items()
    ],
    betas=(recipe.b1, recipe.b2),
    eps=1e-8,
  )
  warmup = round(recipe.warmup * STEPS)

  def rate(step):
    if step < warmup:
      return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))

  schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
  every = [parameter for group in groups.values() for parameter in group]
  losses = []
  for rows in steps:
    total, count = 0.0, 0
    for item in itertools.chain(*rows):
      sample, _ = samples[item]
      ids = torch.tensor(sample.tokens[None], dtype=torch.long)
      logits = model(input_ids=ids, **inputs[item]).logits[0, :-1]
      mask = torch.tensor(sample.supervised[1:])
      total = total + torch.nn.functional.cross_entropy(
        logits[mask], ids[0, 1:][mask], reduction="sum"
      )
      count += int(mask.sum())
    loss = total / count
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(every, recipe.clip)
    optimizer.step()
    schedule.step()
    losses.append(float(loss.detach()))
  return losses


def train_both(folder, base, trained, samples, row_length, sizes=None, recipe=RECIPE):
  """Losses of twenty steps of six samples, here and in torch.

  Args:
    folder: to write the models to.
    base: the directory of the base.
    trained: one of `ADAPTED`, "decoder" or "all"; the projector is trained with each.
    samples: 24 by number, with their tiles.
    row_length: tokens of a packed row.
    sizes: of the images of each sample, for the families that need them.
    recipe: of the optimizer.
  """
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder / "start", config, params, base)
  model = load_torch(folder / "start")
  inputs = {
    item: torch_inputs.make_inputs(
      model, config, tiles, sizes[item] if sizes else (), sample.tokens
    )
    for item, (sample, tiles) in samples.items()
  }
  if modules := ADAPTED.get(trained):
    adapter = LoraConfig(4, 8.0, modules)
    config, params = mllm.add_adapter(config, params, adapter, seed=3)
    huggingface.write_adapter(folder / "adapter", config, params, "start")
    model = peft.PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    if config.newline and "projector" not in modules:  # no module: peft freezes it
      model.get_base_model().model.image_newline.requires_grad_(True)
  elif trained == "decoder":
    for name, parameter in model.model.named_parameters():
      seen = name.startswith(TOWERS)
      parameter.requires_grad_(not seen or any(part in name for part in PROJECTOR))
  lengths = np.array([len(samples[item][0].tokens) for item in range(24)])
  steps = row_packing.training_steps(24, lengths, 6, 5, 0, row_length)
  assert len(steps) == STEPS
  _, metrics = loop.train(
    config,
    params,
    toy.Batches(samples, steps, row_length, config=config).to_grain(),
    STEPS,
    loop.LoopOptions(
      recipe, trainable="decoder" if trained in ("decoder", "lora") else "all"
    ),
    sharding.make_mesh(1, devices=jax.devices()[:1]),
  )
  ours = [line["loss"] for line in metrics]
  return ours, torch_losses(model, samples, inputs, steps, recipe)


@pytest.mark.parametrize(
  ("trained", "family"),
  [
    ("lora", {}),
    ("decoder", {}),
    ("lora", {"decoder": "qwen3", "head_dim": 8, "tower": "dinov2"}),
    ("decoder", {"decoder": "gemma3_text", "head_dim": 8, "num_hidden_layers": 6}),
    ("lora of all", {"decoder": "gemma3_text", "head_dim": 8, "hidden_size": 48}),
    ("lora", {"decoder": "phi3"}),
    ("decoder", {"decoder": "granite", "embedding_multiplier": 3.0}),
    ("lora of all", {"decoder": "glm4", "head_dim": 8}),
    ("lora", {"family": "vipllava"}),
    ("lora of all", {}),
    ("lora of all", {"tower": "siglip_vision_model", "decoder": "qwen2"}),
    ("lora of all", {"decoder": "qwen3", "head_dim": 8, "tower": "dinov2"}),
    ("lora and tower", {"family": "vipllava"}),
  ],
)
def test_losses_of_twenty_steps_are_torch_s(tmp_path, trained, family):
  sizes = dict(SIZES)
  if family.get("tower") == "dinov2":
    del sizes["vision_intermediate_size"]
  base = tiny.make_base(tmp_path / "base", **{**sizes, **family})
  samples = toy.random_samples(24)
  ours, theirs = train_both(tmp_path, base, trained, samples, 32)
  assert theirs[-1] < 0.9 * theirs[0]
  np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize(
  ("family", "trained"),
  [
    *exhaustive.choose(torch_inputs.SEVERAL, ["lora of all", "all"]),
    *exhaustive.choose(torch_inputs.SEVERAL, ["decoder", "lora"], usual=()),
  ],
)
def test_losses_on_rows_of_tiles_are_torch_s(tmp_path, family, trained):
  base = torch_inputs.make_base(tmp_path / "base", family)
  if family in torch_inputs.BARE and trained == "lora of all":
    trained = "lora and tower"
  examples = torch_inputs.make_examples(torch_inputs.open_encoder(base), 24)
  samples = dict(enumerate(examples))
  sizes = [torch_inputs.find_sizes(item) for item in range(24)]
  ours, theirs = train_both(
    tmp_path,
    base,
    trained,
    samples,
    torch_inputs.LENGTH,
    sizes,
    RECIPES.get((family, trained), RECIPE),
  )
  assert theirs[-1] < 0.9 * theirs[0]
  np.testing.assert_allclose(ours, theirs, rtol=1e-4)
