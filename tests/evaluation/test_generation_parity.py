"""Greedy answers token for token as transformers' own, in torch."""

import pathlib
import tempfile

import hypothesis
import numpy as np
import pytest
import torch

from mllm_selector_jax.evaluation import generation
from mllm_selector_jax.models import huggingface
from tests import exhaustive
from tests.evaluation.one_image_prompts import make_prompts
from tests.models import packed, tiny, torch_inputs
from tests.models.huggingface.parity_cases import CASES, overrides
from tests.models.huggingface.test_parity import load_torch

torch.set_num_threads(1)
NEW = 12


def torch_answer(model, prompt, images, eos):
  """The new tokens of a prompt alone, and the first end after them.

  Args:
    model: in torch.
    prompt: token ids.
    images: of the prompt, as the model takes them.
    eos: the token that ends an answer, or a list of those that do.
  """
  first = eos[0] if isinstance(eos, list) else eos
  # Qwen's models would go on from the positions of the prompt before.
  model.model.rope_deltas = None
  ids = model.generate(
    input_ids=torch.tensor(prompt[None], dtype=torch.long),
    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
    **images,
    max_new_tokens=NEW,
    do_sample=False,
    eos_token_id=eos,
    pad_token_id=first,
  )[0, len(prompt) :].tolist()
  return ids + [first] * (NEW - len(ids))


@pytest.mark.parametrize(
  "name",
  [
    *("grouped", "mistral", "qwen2 tied, siglip", "gemma3", "internvl 6b", "vipllava"),
    *("phi3", "phi3, longrope", "granite", "glm4"),
  ],
)
def test_answers_are_transformers(tmp_path, name):
  assert_answers_agree(tmp_path, CASES[name])


@hypothesis.settings(max_examples=2, deadline=None, derandomize=True, database=None)
@hypothesis.given(overrides())
def test_answers_are_transformers_whatever_the_configuration(chosen):
  with tempfile.TemporaryDirectory() as folder:
    assert_answers_agree(pathlib.Path(folder), chosen)


def write(base, folder):
  """The config of a base, parameters of it, and torch's model of them."""
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(folder, config, params, base)
  return config, params, load_torch(folder)


def assert_answers_agree(folder, chosen):
  """Five prompts at once, with a cache, against each alone in torch."""
  base = tiny.make_base(folder / "base", **chosen)
  config, params, model = write(base, folder / "out")
  rng = np.random.default_rng(0)
  prompts, pixels = zip(
    *(
      packed.random_sample(config, rng, length, image)
      for length, image in ((3, True), (17, False), (9, True), (1, False), (24, True))
    ),
    strict=True,
  )
  batch = make_prompts(prompts, pixels, config, rows=6)
  images = [
    torch_inputs.make_inputs(model, config, () if image is None else (image[None],))
    for image in pixels
  ]
  examples = list(zip(prompts, images, strict=True))
  assert_same_answers(model, config, params, examples, batch)


@pytest.mark.parametrize("family", exhaustive.choose(torch_inputs.SEVERAL))
def test_answers_to_questions_of_several_images_are_transformers(tmp_path, family):
  base = torch_inputs.make_base(tmp_path / "base", family)
  config, params, model = write(base, tmp_path / "out")
  encoder, rng = torch_inputs.open_encoder(base), np.random.default_rng(0)
  asked = [(questions[0], sizes) for questions, sizes in torch_inputs.ROWS[:5]]
  prompts = [encoder.prompt(*question) for question in asked]
  tiles = [torch_inputs.cut_random(encoder, rng, sizes) for _, sizes in asked]
  assert [len(cuts) for cuts in tiles] == [0, 1, 3, 0, 1]
  batch = generation.make_prompts(prompts, tiles, config, rows=6)
  examples = [
    (
      prompt.tokens,
      torch_inputs.make_inputs(model, config, cuts, sizes, prompt.tokens),
    )
    for prompt, cuts, (_, sizes) in zip(prompts, tiles, asked, strict=True)
  ]
  assert_same_answers(model, config, params, examples, batch)


def assert_same_answers(model, config, params, examples, batch):
  """A batch of five prompts, against the same prompts (tokens, images) in torch."""
  free = np.asarray(generation.make_generate(config, NEW, eos=2)(params, *batch))
  # An end that some answer reaches in the middle.
  eos = int(free[0][NEW // 2])
  found = np.asarray(generation.make_generate(config, NEW, eos)(params, *batch))
  wanted = [torch_answer(model, *example, eos) for example in examples]
  np.testing.assert_array_equal(found[:5], wanted)
  assert_several_ends_agree(model, config, params, examples, batch, free, eos)
  assert eos in wanted[0] and len({tuple(ids) for ids in wanted}) > 2


def assert_several_ends_agree(model, config, params, examples, batch, free, eos):
  """Two stop tokens, as chat models have; what follows an end is of no meaning."""
  ends = [eos, int(free[1][2])]
  found = np.asarray(generation.make_generate(config, NEW, ends)(params, *batch))
  for row, example in zip(found, examples[:2], strict=False):
    wanted = torch_answer(model, *example, ends)
    np.testing.assert_array_equal(row, wanted)
  assert set(ends) & set(found[1].tolist())
