"""The rival in training: transformers' torch LLaVA, padded batches sorted by length.

A step's samples are sorted by length and cut into micro-batches under a budget of
padded tokens, whose gradients add up; the head sees supervised positions only; the
vision tower is frozen, runs without gradients and no further than the projected layer.
AdamW is torch's fused one. In bfloat16 weights stay float32, under autocast.
"""

import contextlib
import math
from typing import Any

import numpy as np
import torch

from benchmarks.scoring_torch import Rival, cut_by_length
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.training.optimizer_options import OptimizerOptions


def _adapt(model: Any, lora: LoraConfig, dtype: str) -> None:
  """Adapters of peft, in float32; the base is frozen, in the computation's type."""
  import peft

  model.requires_grad_(False).to(getattr(torch, dtype))
  model.model.multi_modal_projector.requires_grad_(True).float()
  names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
  settings = peft.LoraConfig(
    r=lora.rank, lora_alpha=lora.alpha, target_modules=list(names)
  )
  peft.inject_adapter_in_model(settings, model.model.language_model)
  for name, parameter in model.named_parameters():
    if "lora_" in name:
      parameter.data = parameter.data.float()


class Trainer:
  """Trains the rival's projector and decoder, or adapters in place of the decoder.

  Args:
    rival: the model and its samples.
    options: the recipe.
    steps: of the whole run, for the schedule.
    budget: padded tokens of a micro-batch.
    checkpoint: whether activations of the decoder's layers are computed again.
  """

  def __init__(
    self,
    rival: Rival,
    options: OptimizerOptions,
    steps: int,
    budget: int,
    checkpoint: bool = False,
  ):
    self.rival, self.options, self.budget = rival, options, budget
    rival.use_all_layers(False)
    model = rival.model.train()
    model.model.vision_tower.requires_grad_(False)
    if rival.config.lora is not None:
      _adapt(model, rival.config.lora, rival.config.dtype)
    if checkpoint:
      model.model.language_model.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs={"use_reentrant": False}
      )
    self.trained = [p for p in model.parameters() if p.requires_grad]
    self.optimizer = torch.optim.AdamW(
      self.trained,
      lr=options.learning_rate,
      betas=(options.b1, options.b2),
      eps=1e-8,
      weight_decay=options.weight_decay,
      fused=True,
    )
    warmup = max(1, round(options.warmup * steps))

    def rate(step):
      if step < warmup:
        return step / warmup
      return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

  def step(self, items: np.ndarray) -> float:
    """One step over those samples; the loss before it."""
    rival, total = self.rival, torch.zeros((), device=self.rival.device)
    count = sum(int(rival.rows[item][1].sum()) for item in items)
    self.optimizer.zero_grad()
    for part in cut_by_length(rival.lengths[items], self.budget):
      loss = self._loss(items[part]) / count
      loss.backward()
      total += loss.detach()
    torch.nn.utils.clip_grad_norm_(self.trained, self.options.clip)
    self.optimizer.step()
    self.schedule.step()
    return float(total)

  def _loss(self, batch: np.ndarray) -> Any:
    """Cross-entropy of the supervised tokens of a padded micro-batch, summed."""
    rival = self.rival
    half = rival.config.dtype == "bfloat16"
    cast = torch.autocast(rival.device.type, torch.bfloat16) if half else None
    with cast or contextlib.nullcontext():
      _, ids, targets, pixels = rival.collate(batch)
      hidden = rival.model.model(input_ids=ids, pixel_values=pixels, use_cache=False)[0]
      owner, place = torch.nonzero(targets[:, 1:] >= 0, as_tuple=True)
      logits = rival.model.lm_head(hidden[owner, place])
    wanted = targets[owner, place + 1]
    return torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")
