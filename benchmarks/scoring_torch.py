"""The rivals: transformers' torch LLaVA over the same samples, in three ways.

B0: batches of rows in random order, padded, with logits of every token.
B1: batches of rows sorted by length, under a budget of padded tokens; the decoder
    without its head, then head and cross-entropy of the supervised positions only.
B2: B1 under torch.compile with dynamic shapes.

Rows are padded on the right, so a causal decoder needs no padding mask for exact
losses; B1 and B2 leave it out, which lets sdpa run its fast causal kernel. They
also leave out the vision layers behind the projected one. Pixels are normalised
beforehand, once an image.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.scoring_flops import Work
from mllm_selector_jax.models.config import MllmConfig

Batches = list[np.ndarray]


@dataclasses.dataclass
class Rival:
  """A torch model with the pool's rows as tensors.

  Attributes:
    model: transformers' LLaVA.
    config: ours of it.
    rows: token ids and whether they are supervised, a row.
    pixels: of each row, normalised; None for text alone.
  """

  model: Any
  config: MllmConfig
  rows: list[tuple[torch.Tensor, torch.Tensor]]
  pixels: list[torch.Tensor | None]

  @property
  def device(self) -> torch.device:
    return self.model.device

  @property
  def lengths(self) -> np.ndarray:
    return np.array([len(ids) for ids, _ in self.rows])

  def collate(self, batch: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Padded ids, lengths, targets (-100 where none) and pixels or None."""
    ids = [self.rows[row][0] for row in batch]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    targets = torch.nn.utils.rnn.pad_sequence(
      [torch.where(s, i, -100) for i, s in (self.rows[row] for row in batch)],
      batch_first=True,
      padding_value=-100,
    )
    pixels = [self.pixels[row] for row in batch if self.pixels[row] is not None]
    lengths = torch.tensor([len(row) for row in ids])
    values = torch.stack(pixels) if pixels else None
    moved = (x if x is None else x.to(self.device) for x in (padded, targets, values))
    return lengths, *moved

  def use_all_layers(self, wanted: bool) -> None:
    """Whether the vision layers behind the projected one run too."""
    tower = self.model.model.vision_tower
    if not hasattr(self, "_every"):
      self._every = tower.encoder.layers
    layers = self._every if wanted else self._every[: self.config.vision_layers]
    tower.encoder.layers, tower.config.num_hidden_layers = layers, len(layers)
    layer = self.config.feature_layer if wanted else -1
    self.model.config.vision_feature_layer = layer


def make_rival(model: Any, config: MllmConfig, pool: Any) -> Rival:
  """Tensors of all rows, ready before any clock starts."""
  mean = torch.tensor(config.image_mean).reshape(3, 1, 1)
  std = torch.tensor(config.image_std).reshape(3, 1, 1)
  dtype = getattr(torch, config.dtype)

  def normalise(pixels):
    scaled = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return ((scaled - mean) / std).to(dtype).contiguous()

  pictures = {key: normalise(value) for key, value in pool.pictures.items()}
  rows = [
    (torch.from_numpy(s.tokens).long(), torch.from_numpy(s.supervised))
    for s in pool.samples
  ]
  return Rival(model, config, rows, [pictures.get(key) for key in pool.keys])


def cut_randomly(lengths: np.ndarray, size: int, seed: int = 0) -> Batches:
  """Batches of `size` rows in random order."""
  order = np.random.default_rng(seed).permutation(len(lengths))
  return [order[i : i + size] for i in range(0, len(order), size)]


def cut_by_length(lengths: np.ndarray, budget: int) -> Batches:
  """Rows by length, longest first; batches of at most `budget` padded tokens."""
  order = np.argsort(-lengths, kind="stable")
  batches, start = [], 0
  while start < len(order):
    size = max(1, budget // int(lengths[order[start]]))
    batches.append(order[start : start + size])
    start += size
  return batches


def mean_losses(logits, wanted, owner, count) -> torch.Tensor:
  """Mean cross-entropy of each row from its positions' float32 logits."""
  losses = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
  sums = torch.zeros(count, device=losses.device).index_add_(0, owner, losses)
  return sums / torch.bincount(owner, minlength=count)


@torch.inference_mode()
def run_plain(rival: Rival, batches: Batches) -> np.ndarray:
  """B0: every row's mean loss; logits of all tokens, and the padding mask."""
  rival.use_all_layers(True)
  out = np.zeros(len(rival.rows))
  for batch in batches:
    lengths, ids, targets, pixels = rival.collate(batch)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(ids.device)
    logits = rival.model(
      input_ids=ids, attention_mask=mask, pixel_values=pixels, use_cache=False
    ).logits
    wanted = targets[:, 1:]
    losses = torch.nn.functional.cross_entropy(
      logits[:, :-1].float().transpose(1, 2), wanted, reduction="none"
    )
    means = losses.sum(1) / (wanted >= 0).sum(1)
    out[batch] = means.double().cpu().numpy()
  return out


@torch.inference_mode()
def run_sorted(
  rival: Rival, batches: Batches, body: Callable[..., Any] | None = None
) -> np.ndarray:
  """B1, and with a compiled body B2: every row's mean loss."""
  rival.use_all_layers(False)
  body = rival.model.model if body is None else body
  out = np.zeros(len(rival.rows))
  for batch in batches:
    _, ids, targets, pixels = rival.collate(batch)
    hidden = body(input_ids=ids, pixel_values=pixels, use_cache=False)[0]
    owner, place = torch.nonzero(targets[:, 1:] >= 0, as_tuple=True)
    logits = rival.model.lm_head(hidden[owner, place])
    wanted = targets[owner, place + 1]
    out[batch] = mean_losses(logits, wanted, owner, len(batch)).double().cpu().numpy()
  return out


def compile_body(rival: Rival) -> Callable[..., Any]:
  """The model less its head under torch.compile, for any batch and length."""
  rival.use_all_layers(False)
  torch._dynamo.reset()
  return torch.compile(rival.model.model, dynamic=True)


def count_work(rival: Rival, batches: Batches, plain: bool) -> Work:
  """What the batches execute; attention as a causal kernel does it, in halves."""
  lengths, total = rival.lengths, Work()
  for batch in batches:
    longest = int(lengths[batch].max())
    tokens = longest * len(batch)
    total += Work(
      tokens=tokens,
      pairs=len(batch) * longest**2 * (1 if plain else 0.5),
      images=sum(rival.pixels[row] is not None for row in batch),
      heads=tokens if plain else sum(int(rival.rows[row][1].sum()) for row in batch),
      last=tokens,
    )
  return total
