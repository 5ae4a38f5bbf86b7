"""Granite's logits, which the head of transformers 5's LLaVA does not divide."""

import numpy as np
import torch
import transformers

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import mapping
from tests.models import packed, tiny
from tests.models.huggingface.test_parity import load_torch, run, torch_logits

torch.set_num_threads(1)
FIELDS = {
  "decoder": "granite",
  "attention_multiplier": 0.25,
  "embedding_multiplier": 3.0,
  "residual_multiplier": 0.4,
}


def test_logits_are_divided_as_granite_alone_does(tmp_path):
  base = tiny.make_base(tmp_path / "base", **FIELDS, logits_scaling=8.0)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  text = tiny.make_hf_config(**FIELDS, logits_scaling=8.0).text_config
  alone = transformers.GraniteForCausalLM(text).eval()
  start = "language_model."
  alone.load_state_dict(
    {
      name.removeprefix(start): torch.tensor(array)
      for name, array in mapping.to_tensors(config, params)
      if name.startswith(start)
    }
  )
  rng = np.random.default_rng(0)
  tokens, _ = packed.random_sample(config, rng, 20, False)
  logits, _ = run(config, params, packed.pack(config, [[(tokens, None)]], 32))
  with torch.no_grad():
    wanted = alone(torch.tensor(tokens[None])).logits[0].numpy()
  np.testing.assert_allclose(logits[0, : len(tokens)], wanted, atol=1e-5)
  huggingface.write_model(tmp_path / "out", config, params, base)
  whole = torch_logits(load_torch(tmp_path / "out"), config, tokens, None)
  assert whole.std() > 0.3
  np.testing.assert_allclose(logits[0, : len(tokens)], whole / 8, atol=1e-5)
