"""The projector of the real base, before it is aligned: patches become words.

A patch of a drawn picture is to become the mean of the decoder's embeddings of the
words that label it; in pictures whose places are unknown, every patch has the labels of
the whole. The decoder is not run. Afterwards LLaVA's stage 1 trains the projector
through the decoder.
"""

from pathlib import Path

import numpy as np

from benchmarks.real_tower import LabelledArrays, normalize

_EMPTY = " plain"  # the word of a patch without anything


def embed_labels(names: list[str], decoder: Path) -> np.ndarray:
  """Mean embedding of each label's tokens and, last, of an empty place; G + 1, D."""
  import safetensors
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
  with safetensors.safe_open(decoder / "model.safetensors", "np") as file:
    table = file.get_tensor("model.embed_tokens.weight")
  texts = [f" {name.removeprefix('letter ')}" for name in names]
  return np.stack(
    [
      table[tokenizer.encode(text, add_special_tokens=False)].mean(0)
      for text in [*texts, _EMPTY]
    ]
  ).astype(np.float32)


def make_targets(arrays: LabelledArrays, embedded: np.ndarray) -> np.ndarray:
  """What every patch is to become; float32, of shape N, patches, D."""
  labels = np.where(
    arrays.placed[:, None, None], arrays.local, arrays.whole[:, None, :]
  ).astype(np.float32)
  empty = 1.0 - labels.any(-1, keepdims=True)
  weights = np.concatenate([labels, empty], -1)
  weights /= weights.sum(-1, keepdims=True)
  return weights @ embedded


def train_projector(
  out: Path,
  tower: Path,
  decoder: Path,
  arrays: LabelledArrays,
  steps: int = 1000,
  batch: int = 64,
  seed: int = 0,
) -> float:
  """Trains the projector on the tower's features and writes it as safetensors.

  Returns:
    The share of the targets' variance that it explains in the last hundred steps.
  """
  import torch
  import transformers
  from safetensors.torch import save_file

  torch.manual_seed(seed)
  embedded = embed_labels(arrays.names, decoder)
  encoder = transformers.CLIPVisionModel.from_pretrained(tower)
  width, depth = encoder.config.hidden_size, embedded.shape[1]
  projector = torch.nn.Sequential(
    torch.nn.Linear(width, depth), torch.nn.GELU(), torch.nn.Linear(depth, depth)
  )
  with torch.no_grad():
    features = torch.cat(
      [
        encoder(normalize(arrays.pixels[at : at + 256])).last_hidden_state[:, 1:]
        for at in range(0, len(arrays.pixels), 256)
      ]
    )
  optimizer = torch.optim.AdamW(projector.parameters(), 2e-3, weight_decay=0.0)
  schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
  order, left, spread = np.random.default_rng(seed), [], []
  for _ in range(steps):
    rows = order.choice(len(features), min(batch, len(features)), replace=False)
    part = LabelledArrays(
      arrays.pixels[:0], arrays.whole[rows], arrays.local[rows], arrays.placed[rows],
      arrays.names,
    )  # fmt: skip
    target = torch.from_numpy(make_targets(part, embedded))
    error = (projector(features[rows]) - target).square().sum(-1).mean()
    optimizer.zero_grad()
    error.backward()
    optimizer.step()
    schedule.step()
    left.append(error.item())
    spread.append((target - target.mean((0, 1))).square().sum(-1).mean().item())
  names = {"0": "linear_1", "2": "linear_2"}
  save_file(
    {
      f"multi_modal_projector.{names[key.split('.')[0]]}.{key.split('.')[1]}": value
      for key, value in projector.state_dict().items()
    },
    out,
    metadata={"format": "pt"},
  )
  return 1 - float(np.sum(left[-100:]) / np.sum(spread[-100:]))
