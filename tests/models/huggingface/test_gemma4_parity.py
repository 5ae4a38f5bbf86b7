"""Agreement with transformers' Gemma 4, on rows of 0 to 3 images."""

import dataclasses
import pathlib
import tempfile

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from mllm_selector_jax.models import attention, huggingface
from tests.models import packed, torch_inputs
from tests.models.huggingface.test_bfloat16 import compute_ours, compute_theirs
from tests.models.huggingface.test_gemma3_parity import assert_same
from tests.models.huggingface.test_parity import run

torch.set_num_threads(1)
EXAMPLES = 6  # with 0, 1 and 3 images


def compute_both(folder, examples=EXAMPLES, both_ways=True, **chosen):
  """Logits and losses of packed rows, and of each example on its own in torch."""
  base = torch_inputs.make_base(folder / "base", "gemma4", **chosen)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder / "out", config, params, base)
  encoder = torch_inputs.open_encoder(base)
  rows = dict(enumerate(torch_inputs.make_examples(encoder, examples)))
  run.clear_cache()  # tests change what it is compiled of
  own = dataclasses.replace(config, both_ways=both_ways and config.both_ways)
  ours = compute_ours(own, params, rows)
  theirs = compute_theirs(folder / "out", config, rows, torch.float32)
  return ours, theirs


@pytest.mark.parametrize("dense", [4096, 0], ids=["all pairs", "blocks"])
def test_both_ways_of_attending_agree(tmp_path, monkeypatch, dense):
  monkeypatch.setattr(attention, "DENSE", dense)
  assert_same(*compute_both(tmp_path))
