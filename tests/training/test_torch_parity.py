"""Twenty steps beside torch with transformers and peft: the same data and recipe."""

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
from mllm_selector_jax.models.config import LoraConfig
from mllm_selector_jax.training import loop
from mllm_selector_jax.training.optimizer_options import OptimizerOptions
from tests.models import packed, tiny
from tests.models.huggingface.test_parity import load_torch
from tests.training import toy

torch.set_num_threads(1)
STEPS = 20
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


def torch_losses(model, config, samples, steps):
  """Losses of HF Trainer's and LLaVA's recipe, written with torch's own parts."""
  groups = {}
  for name, parameter in model.named_parameters():
    if parameter.requires_grad:
      key = ("multi_modal_projector" in name, parameter.ndim >= 2)
      groups.setdefault(key, []).append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {
        "params": parameters,
        "lr": RECIPE.projector_learning_rate if projector else RECIPE.learning_rate,
        "weight_decay": RECIPE.weight_decay if decayed else 0.0,
      }
      for (projector, decayed), parameters in groups.items()
    ],
    betas=(RECIPE.b1, RECIPE.b2),
    eps=1e-8,
  )
  warmup = round(RECIPE.warmup * STEPS)

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
      sample, tiles = samples[item]
      pixels, images = packed.find_pixels(tiles), None
      if pixels is not None:
        mean, deviation = map(np.array, (config.image_mean, config.image_std))
        scaled = (pixels / 255.0 - mean) / deviation
        images = torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=torch.float32)
      ids = torch.tensor(sample.tokens[None], dtype=torch.long)
      logits = model(input_ids=ids, pixel_values=images).logits[0, :-1]
      mask = torch.tensor(sample.supervised[1:])
      total = total + torch.nn.functional.cross_entropy(
        logits[mask], ids[0, 1:][mask], reduction="sum"
      )
      count += int(mask.sum())
    loss = total / count
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(every, RECIPE.clip)
    optimizer.step()
    schedule.step()
    losses.append(float(loss.detach()))
  return losses


@pytest.mark.parametrize(
  ("trained", "family"),
  [
    ("lora", {}),
    ("decoder", {}),
    ("lora", {"decoder": "qwen3", "head_dim": 8, "tower": "dinov2"}),
    ("lora", {"family": "vipllava"}),
  ],
)
def test_losses_of_twenty_steps_are_torch_s(tmp_path, trained, family):
  sizes = dict(SIZES)
  if family.get("tower") == "dinov2":
    del sizes["vision_intermediate_size"]
  base = tiny.make_base(tmp_path / "base", **sizes, **family)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "start", config, params, base)
  model = load_torch(tmp_path / "start")
  if trained == "lora":
    config, params = mllm.add_adapter(config, params, LoraConfig(4, 8.0), seed=3)
    huggingface.write_adapter(tmp_path / "adapter", config, params, "start")
    model = peft.PeftModel.from_pretrained(
      model, tmp_path / "adapter", is_trainable=True
    )
  else:
    model.model.vision_tower.requires_grad_(False)
  samples = toy.random_samples(24)
  lengths = np.array([len(samples[i][0].tokens) for i in range(24)])
  steps = row_packing.training_steps(24, lengths, 6, 5, 0, 32)
  batches = toy.Batches(samples, steps, 32)
  _, metrics = loop.train(
    config,
    params,
    batches.to_grain(),
    STEPS,
    loop.LoopOptions(RECIPE),
    sharding.make_mesh(1, devices=jax.devices()[:1]),
  )
  ours = [line["loss"] for line in metrics]
  theirs = torch_losses(model, config, samples, steps)
  assert theirs[-1] < 0.9 * theirs[0]
  np.testing.assert_allclose(ours, theirs, rtol=1e-4)
