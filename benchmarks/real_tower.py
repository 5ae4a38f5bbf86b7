"""The vision tower of the real base: a small CLIP tower that learns to name.

Each of its 16 patches learns to name what is in its place, and their mean what is in
the picture (labels of `real_pictures`), by binary cross-entropies over all labels that
occur often enough. Seeded; the result depends on the number of threads of torch only in
its rounding.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.real_pictures import LabelledPicture

SIDE, PATCH, WIDTH = 64, 16, 192  # pixels, pixels, features


@dataclasses.dataclass(frozen=True)
class TowerOptions:
  """How the tower is trained.

  Attributes:
    layers: of the tower.
    steps, batch: how long, and pictures a step.
    learning_rate: the highest; warm-up, then cosine.
    least: how many pictures a label must occur in.
    seed: of parameters and order.
  """

  layers: int = 3
  steps: int = 2600
  batch: int = 64
  learning_rate: float = 1.5e-3
  least: int = 20
  seed: int = 0


@dataclasses.dataclass
class LabelledArrays:
  """Pictures as arrays: N pictures, G labels.

  Attributes:
    pixels: uint8, of shape N, SIDE, SIDE, 3.
    whole: labels of each picture; bool, of shape N, G.
    local: labels of each patch; bool, of shape N, patches, G.
    placed: whether labels of patches are known; bool, of shape N.
    names: of the labels.
  """

  pixels: np.ndarray
  whole: np.ndarray
  local: np.ndarray
  placed: np.ndarray
  names: list[str]


def to_arrays(pictures: Iterable[LabelledPicture], least: int) -> LabelledArrays:
  """Resizes pictures to squares, as the base does, and encodes their labels."""
  pixels, wholes, locals_, placed = [], [], [], []
  for picture in pictures:
    square, scale = _pad(picture.image)
    pixels.append(np.asarray(square.resize((SIDE, SIDE), 3), np.uint8))
    wholes.append(set(picture.labels))
    locals_.append(_label_patches(picture, scale))
    placed.append(picture.places is not None)
  counts = collections.Counter(label for labels in wholes for label in labels)
  counts.update(
    label for patches in locals_ for label in set().union(*patches) if label
  )
  names = sorted(label for label, count in counts.items() if count >= least)
  index = {name: place for place, name in enumerate(names)}
  whole = np.zeros((len(pixels), len(names)), bool)
  local = np.zeros((len(pixels), (SIDE // PATCH) ** 2, len(names)), bool)
  for row, (labels, patches) in enumerate(zip(wholes, locals_, strict=True)):
    whole[row, [index[label] for label in labels if label in index]] = True
    for patch, own in enumerate(patches):
      local[row, patch, [index[label] for label in own if label in index]] = True
  return LabelledArrays(np.stack(pixels), whole, local, np.array(placed), names)


def _pad(image):
  """A picture in the middle of a square, and the shares that its sides take there."""
  from PIL import Image

  width, height = image.size
  side = max(width, height)
  square = Image.new("RGB", (side, side), (122, 116, 104))
  square.paste(image, ((side - width) // 2, (side - height) // 2))
  return square, (width / side, height / side)


def _label_patches(picture: LabelledPicture, scale) -> list[set[str]]:
  """The labels of every patch of which a box covers a fifth, or that holds a fifth."""
  count = SIDE // PATCH
  patches: list[set[str]] = [set() for _ in range(count**2)]
  for box, labels in picture.places or ():
    shares = [
      (box[i] * scale[i % 2] + (1 - scale[i % 2]) / 2) * count for i in range(4)
    ]
    size = max(1e-6, (shares[2] - shares[0]) * (shares[3] - shares[1]))
    for row in range(count):
      for column in range(count):
        wide = min(shares[2], column + 1) - max(shares[0], column)
        high = min(shares[3], row + 1) - max(shares[1], row)
        if wide > 0 and high > 0 and wide * high > 0.2 * min(1.0, size):
          patches[row * count + column].update(labels)
  return patches


def train_tower(
  out: Path, arrays: LabelledArrays, options: TowerOptions, say: Callable[[str], None]
) -> dict[str, float]:
  """Trains the tower and writes it with its image processor.

  Returns:
    Of the last twentieth of the pictures, which are not trained on: `whole` and
    `local`, mean average precision of the labels that occur there.
  """
  import torch
  import transformers

  torch.manual_seed(options.seed)
  tower = transformers.CLIPVisionModel(
    transformers.CLIPVisionConfig(
      hidden_size=WIDTH,
      intermediate_size=4 * WIDTH,
      num_hidden_layers=options.layers,
      num_attention_heads=WIDTH // 64,
      image_size=SIDE,
      patch_size=PATCH,
      projection_dim=WIDTH,
    )
  )
  heads = torch.nn.ModuleList(
    torch.nn.Sequential(
      torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, len(arrays.names))
    )
    for _ in range(2)
  )
  for head in heads:
    torch.nn.init.constant_(head[1].bias, -4.0)
  parameters = [*tower.parameters(), *heads.parameters()]
  optimizer = torch.optim.AdamW(
    parameters, options.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
  )
  schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, options.learning_rate, options.steps, pct_start=0.1
  )
  held = max(1, len(arrays.pixels) // 20)
  order = np.random.default_rng(options.seed)
  rows = order.permutation(len(arrays.pixels))
  held_rows, rows = rows[:held], rows[held:]
  start, losses = time.time(), []
  for step in range(options.steps):
    chosen = order.choice(rows, options.batch, replace=False)
    loss = _loss(tower, heads, arrays, chosen)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
    if (step + 1) % 100 == 0:
      say(
        f"tower: step {step + 1}, loss {np.mean(losses[-100:]):.3f},"
        f" {time.time() - start:.0f} s"
      )
  tower.save_pretrained(out)
  transformers.CLIPImageProcessorPil(
    size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
  ).save_pretrained(out)
  return _measure(tower, heads, arrays, held_rows)


def normalize(pixels: np.ndarray):
  """Pictures as the tower reads them: float32, of shape N, 3, SIDE, SIDE."""
  import torch
  from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

  values = torch.from_numpy(pixels).float() / 255
  values = (values - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)
  return values.permute(0, 3, 1, 2)


def _features(tower, heads, pixels: np.ndarray):
  """Logits of the whole pictures and of their patches."""
  hidden = tower(normalize(pixels)).last_hidden_state[:, 1:]
  return heads[0](hidden.mean(1)), heads[1](hidden)


def _loss(tower, heads, arrays: LabelledArrays, rows: np.ndarray):
  import torch

  whole, local = _features(tower, heads, arrays.pixels[rows])
  cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
  target = torch.from_numpy(arrays.whole[rows]).float()
  loss = cross_entropy(whole, target, reduction="none").sum(-1).mean()
  placed = torch.from_numpy(arrays.placed[rows]).float()
  target = torch.from_numpy(arrays.local[rows]).float()
  each = cross_entropy(local, target, reduction="none").sum(-1).mean(-1)
  return loss + (each * placed).sum() / placed.sum().clamp(min=1)


def _measure(tower, heads, arrays: LabelledArrays, rows) -> dict[str, float]:
  import torch
  from sklearn.metrics import average_precision_score

  with torch.no_grad():
    whole, local = _features(tower, heads, arrays.pixels[rows])
  told = {}
  placed = arrays.placed[rows]
  for name, logits, target in (
    ("whole", whole.numpy(), arrays.whole[rows]),
    ("local", local.numpy()[placed].reshape(-1, len(arrays.names)),
     arrays.local[rows][placed].reshape(-1, len(arrays.names))),
  ):  # fmt: skip
    used = np.flatnonzero(target.any(0))
    told[name] = float(
      np.mean([average_precision_score(target[:, i], logits[:, i]) for i in used])
    )
  return told
