"""Logits and losses in bfloat16, beside transformers in bfloat16, on images in tiles.

The two round at other places, so the bounds are those of the rounding itself. Over all
logits ours may be a third farther from float32 than transformers is (the largest by a
half), and from transformers twice as far. Losses may differ by a thousandth.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional

from mllm_selector_jax.data.packing import assembly, loader, row_packing
from mllm_selector_jax.models import huggingface
from tests import exhaustive
from tests.models import packed, torch_inputs
from tests.models.huggingface.test_parity import run, supervise
from tests.training import toy

torch.set_num_threads(1)
EXAMPLES = 6
# More layers, and norms of small numbers, round by more than the bounds in
# transformers, and by half as much here.
FEWER = {
  "gemma4": {
    "rms_norm_eps": 0.5,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
  },
  "gemma4e": {"rms_norm_eps": 0.8, "vision_rms_norm_eps": 2.0},
}


def compute_ours(config, params, examples):
  """Logits and the mean loss of each example, from packed rows of several."""
  lengths = [len(sample.tokens) for sample, _ in examples.values()]
  rows = row_packing.pack(lengths, torch_inputs.LENGTH)
  assert max(map(len, rows)) > 1
  shape = toy.find_shape(config, examples, [rows], torch_inputs.LENGTH)
  batch, _ = assembly.assemble(
    loader.as_trees(rows), examples, shape, config.image_token
  )
  logits, losses = run(config, params, supervise(batch, rows))
  assert logits.dtype == config.dtype
  assert losses.dtype == jnp.promote_types(config.dtype, "float32")
  results = {}
  for row, items in enumerate(rows):
    start = learned = 0
    for item in items:
      end, count = start + lengths[item], lengths[item] - 1
      own = np.asarray(logits[row, start:end], np.float32)
      results[item] = own, float(losses[row, learned : learned + count].mean())
      start, learned = end, learned + count
  return results


def compute_theirs(folder, config, examples, dtype):
  """The same by transformers, each example on its own."""
  model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
  results = {}
  for item, (sample, tiles) in examples.items():
    sizes = torch_inputs.find_sizes(item)
    images = torch_inputs.make_inputs(model, config, tiles, sizes, sample.tokens)
    if images:
      images["pixel_values"] = images["pixel_values"].to(dtype)
    tokens = torch.tensor(sample.tokens[None], dtype=torch.long)
    with torch.no_grad():
      logits = model.eval()(input_ids=tokens, **images).logits[0]
    assert logits.dtype == dtype
    loss = functional.cross_entropy(logits[:-1].float(), tokens[0, 1:])
    results[item] = logits.float().numpy(), float(loss)
  return results


def measure(first, second):
  """The root mean square and the largest of the differences of all logits."""
  pairs = [(first[item][0], second[item][0]) for item in first]
  distance = np.concatenate([(a - b).ravel() for a, b in pairs])
  return np.sqrt(np.mean(distance**2)), np.abs(distance).max()


OTHERS = ("qwen3_5", "glm4v", "gemma4", "gemma4e")


@pytest.mark.parametrize("family", exhaustive.choose([*torch_inputs.TILED, *OTHERS]))
def test_bfloat16_is_as_near_to_float32_as_transformers_is(tmp_path, family):
  base = torch_inputs.make_base(tmp_path / "base", family, **FEWER.get(family, {}))
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "out", config, params, base)
  encoder = torch_inputs.open_encoder(base)
  examples = dict(enumerate(torch_inputs.make_examples(encoder, EXAMPLES)))
  half = dataclasses.replace(config, dtype="bfloat16")
  exact = compute_theirs(tmp_path / "out", config, examples, torch.float32)
  ours = compute_ours(half, params, examples)
  theirs = compute_theirs(tmp_path / "out", config, examples, torch.bfloat16)
  rms, largest = measure(theirs, exact)
  own_rms, own_largest = measure(ours, exact)
  # A rounding of bfloat16 is a 256th part; the logits are of the order of 1.
  assert 1e-3 < own_rms < 4 / 3 * rms < 0.02
  assert own_largest < 1.5 * largest < 0.2
  assert measure(ours, theirs)[0] < 2 * rms
  for item, (_, loss) in ours.items():
    assert exact[item][0].std() > 0.3  # or the bounds would say nothing
    np.testing.assert_allclose(loss, theirs[item][1], rtol=1e-3)
    np.testing.assert_allclose(loss, exact[item][1], rtol=1e-3)
