"""Torch's rivals without padding: rows one after the other, attention a row.

B3: rows packed under a budget of tokens, and flash attention of variable length, which
    torch has on GPUs (`torch.nn.attention.varlen`); on CPUs sdpa, row by row.
B4: B3 under torch.compile with dynamic shapes.

As in B1 the head sees supervised positions only, and the vision layers behind the
projected one are left out.
"""

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.scoring_flops import Work
from benchmarks.scoring_torch import Batches, Rival, mean_losses

NAME = "rows_packed"  # of the attention, for transformers


def attend(module, query, key, value, attention_mask, row_ends, longest, **others):
  """Causal attention in each packed row, in the form that transformers calls.

  Args:
    module: the layer.
    query, key, value: [1, heads, tokens, width].
    attention_mask: None.
    row_ends: where rows begin and end, from 0 to the number of tokens.
    longest: tokens of the longest row.
    others: what other kernels take.

  Returns:
    [1, tokens, heads, width], and no weights.
  """
  assert attention_mask is None
  groups = query.shape[1] // key.shape[1]
  key, value = (
    x.repeat_interleave(groups, 1) if groups > 1 else x for x in (key, value)
  )
  if query.is_cuda:
    from torch.nn.attention.varlen import varlen_attn

    # Torch 2.10 has `is_causal`, later versions a window.
    takes = inspect.signature(varlen_attn).parameters
    causal = {"is_causal": True} if "is_causal" in takes else {"window_size": (-1, 0)}
    packed = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    mixed = varlen_attn(*packed, row_ends, row_ends, longest, longest, **causal)
    return mixed[None], None
  ends = row_ends.tolist()
  mixed = [
    torch.nn.functional.scaled_dot_product_attention(
      *(x[:, :, first:last] for x in (query, key, value)), is_causal=True
    )
    for first, last in itertools.pairwise(ends)
  ]
  return torch.cat(mixed, 2).transpose(1, 2), None


def use_packed(rival: Rival) -> None:
  """The decoder's attention is from now on `attend`."""
  transformers.AttentionInterface.register(NAME, attend)
  rival.model.set_attn_implementation({"text_config": NAME, "vision_config": "sdpa"})
  rival.use_all_layers(False)


def cut_packed(lengths: np.ndarray, budget: int) -> Batches:
  """Rows by length, longest first; batches of at most `budget` tokens."""
  batches, total = [[]], 0
  for row in np.argsort(-lengths, kind="stable"):
    if batches[-1] and total + lengths[row] > budget:
      batches.append([])
      total = 0
    batches[-1].append(row)
    total += int(lengths[row])
  return [np.array(batch) for batch in batches]


@torch.inference_mode()
def run_packed(rival: Rival, batches: Batches, body: Callable[..., Any]) -> np.ndarray:
  """B3, and with a compiled body B4: every row's mean loss."""
  out = np.zeros(len(rival.rows))
  for batch in batches:
    rows = [rival.rows[row] for row in batch]
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    ids = torch.cat([ids for ids, _ in rows])
    wanted = torch.cat([torch.where(s, i, -100) for i, s in rows])
    wanted[torch.cumsum(lengths, 0)[:-1]] = -100  # nothing is before a row's first
    positions = torch.cat([torch.arange(n) for n in lengths])
    owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    ends = torch.nn.functional.pad(torch.cumsum(lengths, 0), (1, 0)).to(torch.int32)
    ids, wanted, positions, owner, ends = (
      x.to(rival.device) for x in (ids, wanted, positions, owner, ends)
    )
    pixels = [rival.pixels[row] for row in batch if rival.pixels[row] is not None]
    hidden = body(
      input_ids=ids[None],
      pixel_values=torch.stack(pixels).to(rival.device) if pixels else None,
      position_ids=positions[None],
      use_cache=False,
      row_ends=ends,
      longest=int(lengths.max()),
    )[0]
    (place,) = torch.nonzero(wanted[1:] >= 0, as_tuple=True)
    logits = rival.model.lm_head(hidden[0, place])
    losses = mean_losses(logits, wanted[place + 1], owner[place], len(batch))
    out[batch] = losses.double().cpu().numpy()
  return out


def count_packed(rival: Rival) -> Work:
  """What all rows ask for, which is what is executed."""
  lengths = rival.lengths
  return Work(
    tokens=int(lengths.sum()),
    pairs=float((lengths.astype(np.float64) ** 2).sum() / 2),
    images=sum(pixels is not None for pixels in rival.pixels),
    heads=sum(int(learned.sum()) for _, learned in rival.rows),
    last=int(lengths.sum()),
  )
