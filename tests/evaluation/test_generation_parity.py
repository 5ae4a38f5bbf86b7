"""Greedy answers token for token as transformers' own, in torch."""

import pathlib
import tempfile

import hypothesis
import numpy as np
import pytest
import torch

from mllm_selector_jax.evaluation import generation
from mllm_selector_jax.models import huggingface
from tests.evaluation.one_image_prompts import make_prompts
from tests.models import packed, tiny
from tests.models.huggingface.test_parity import CASES, load_torch, overrides

torch.set_num_threads(1)
NEW = 12


def torch_answer(model, config, prompt, pixels, eos):
  first = eos[0] if isinstance(eos, list) else eos
  images = {}
  if pixels is not None:
    scaled = (pixels / 255.0 - np.array(config.image_mean)) / np.array(config.image_std)
    scaled = torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=torch.float32)
    images["pixel_values"] = scaled
  ids = model.generate(
    input_ids=torch.tensor(prompt[None]),
    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
    **images,
    max_new_tokens=NEW,
    do_sample=False,
    eos_token_id=eos,
    pad_token_id=first,
  )[0, len(prompt) :].tolist()
  return ids + [first] * (NEW - len(ids))


@pytest.mark.parametrize(
  "name", ["grouped", "mistral", "qwen2 tied, siglip", "internvl 6b", "vipllava"]
)
def test_answers_are_transformers(tmp_path, name):
  assert_answers_agree(tmp_path, CASES[name])


@hypothesis.settings(max_examples=2, deadline=None, derandomize=True, database=None)
@hypothesis.given(overrides())
def test_answers_are_transformers_whatever_the_configuration(chosen):
  with tempfile.TemporaryDirectory() as folder:
    assert_answers_agree(pathlib.Path(folder), chosen)


def assert_answers_agree(folder, chosen):
  """Five prompts at once, with a cache, against each alone in torch."""
  base = tiny.make_base(folder / "base", **chosen)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder / "out", config, params, base)
  model = load_torch(folder / "out")
  rng = np.random.default_rng(0)
  examples = [
    packed.random_sample(config, rng, length, image)
    for length, image in ((3, True), (17, False), (9, True), (1, False), (24, True))
  ]
  prompts, pixels = zip(*examples, strict=True)
  batch = make_prompts(prompts, pixels, config, rows=6)
  free = np.asarray(generation.make_generate(config, NEW, eos=2)(params, *batch))
  # An end that some answer reaches in the middle.
  eos = int(free[0][NEW // 2])
  found = np.asarray(generation.make_generate(config, NEW, eos)(params, *batch))
  wanted = [torch_answer(model, config, *example, eos) for example in examples]
  np.testing.assert_array_equal(found[:5], wanted)
  assert_several_ends_agree(model, config, params, examples, batch, free, eos)
  assert eos in wanted[0] and len({tuple(ids) for ids in wanted}) > 2


def assert_several_ends_agree(model, config, params, examples, batch, free, eos):
  """Two stop tokens, as chat models have; what follows an end is of no meaning."""
  ends = [eos, int(free[1][2])]
  found = np.asarray(generation.make_generate(config, NEW, ends)(params, *batch))
  for row, example in zip(found, examples[:2], strict=False):
    wanted = torch_answer(model, config, *example, ends)
    np.testing.assert_array_equal(row, wanted)
  assert set(ends) & set(found[1].tolist())
