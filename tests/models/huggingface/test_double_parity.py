"""Agreement with transformers in float64, where rounding hides nothing."""

import pathlib
import tempfile

import hypothesis
import jax
import numpy as np
import torch

from mllm_selector_jax.models import huggingface
from tests.models import packed, tiny
from tests.models.huggingface.parity_cases import overrides
from tests.models.huggingface.test_parity import assert_agree, load_torch

torch.set_num_threads(1)


class Rotation(torch.nn.Module):
  """Rotary angles in float64, which transformers computes in float32."""

  def __init__(self, decoder):
    super().__init__()
    self.ropes = {None: decoder.rope, "full_attention": decoder.rope}
    self.ropes["sliding_attention"] = decoder.window_rope
    self.head_dim = decoder.head_dim

  def forward(self, x, position_ids, layer_type=None, **_):
    rope = self.ropes[layer_type]
    frequencies = torch.tensor(rope.frequencies(self.head_dim))
    angles = position_ids[..., None].double() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return rope.scale * angles.cos(), rope.scale * angles.sin()


def make_double_norm(norm):
  """The same RMS norm in float64."""
  offset = type(norm).__name__.startswith("Gemma")
  epsilon = norm.eps if offset else norm.variance_epsilon
  double = torch.nn.RMSNorm(len(norm.weight), epsilon).double()
  double.weight = torch.nn.Parameter(norm.weight.double() + offset)
  return double


@hypothesis.settings(max_examples=4, deadline=None, derandomize=True, database=None)
@hypothesis.given(overrides())
def test_agreement_is_of_the_mathematics_not_of_the_rounding(chosen):
  # In float64 throughout: where transformers rounds to float32 by itself, in
  # the norms and the angles, its own formula runs in float64 instead.
  with tempfile.TemporaryDirectory() as folder:
    base = tiny.make_base(pathlib.Path(folder) / "base", **chosen)
    config = huggingface.read_config(base, dtype="float64")
    params = packed.random_params(config)
    huggingface.write_model(pathlib.Path(folder) / "out", config, params, base)
    model = load_torch(pathlib.Path(folder) / "out").double()
  decoder = model.model.language_model
  decoder.rotary_emb = Rotation(config.decoder)
  if config.decoder.embedding_scale is not None:
    scale = torch.tensor(config.decoder.embedding_scale, dtype=torch.float64)
    decoder.embed_tokens.embed_scale = scale
  for module in model.modules():
    for key, child in module.named_children():
      if type(child).__name__.endswith("RMSNorm"):
        setattr(module, key, make_double_norm(child))
  with jax.enable_x64(True):
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    assert_agree(model, config, params, tolerance=1e-9)
