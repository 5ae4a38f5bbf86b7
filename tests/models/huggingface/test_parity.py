"""Agreement with transformers' own LLaVA, in torch, float32."""

import functools
import pathlib
import tempfile

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mllm_selector_jax import losses
from mllm_selector_jax.models import huggingface, mllm
from tests import compiling
from tests.models import packed, tiny
from tests.models.huggingface import bases
from tests.models.huggingface.parity_cases import CASES, overrides

torch.set_num_threads(1)


def load_torch(folder):
  model, info = transformers.AutoModelForImageTextToText.from_pretrained(
    folder, output_loading_info=True, dtype=torch.float32
  )
  for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not info[problem], info
  return model.eval()


def torch_logits(model, config, tokens, pixels):
  images = None
  if pixels is not None:
    scaled = (pixels / 255.0 - np.array(config.image_mean)) / np.array(config.image_std)
    images = torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=model.dtype)
  with torch.no_grad():
    out = model(input_ids=torch.tensor(tokens[None]), pixel_values=images)
  return out.logits[0].numpy()


@functools.partial(jax.jit, static_argnums=0, compiler_options=compiling.AS_USERS)
def run(config, params, batch):
  """Logits of every place, and losses as training and scoring have them."""
  hidden = mllm.hidden_states(config, params, batch)
  head = mllm.head(config, params)
  logits = jnp.matmul(hidden, head.astype(hidden.dtype), precision="highest")
  with mllm.precision(config):
    states = mllm.hidden_states(config, params, batch, batch.predict)
    cap = config.decoder.logit_cap
    found = losses.supervised_losses(states, head, batch.targets, cap)
  return losses.cap_logits(logits, cap), found


def supervise(batch, rows):
  """The batch with every token of a sample but its first supervised."""
  predict, targets = np.zeros((2, len(rows), batch.tokens.shape[1]), np.int32)
  for row, samples in enumerate(rows):
    places = np.concatenate(
      [np.flatnonzero(batch.segments[row] == n + 1)[:-1] for n in range(len(samples))]
    )
    predict[row, : len(places)] = places
    targets[row, : len(places)] = batch.tokens[row, places + 1]
  return batch._replace(predict=predict, targets=targets)


def assert_agree(model, config, params, tolerance=1e-5):
  """Samples packed two and three to a row, against each on its own in torch."""
  rng = np.random.default_rng(0)
  rows = [
    [
      packed.random_sample(config, rng, size, image)
      for size, image in ((9, True), (12, False), (3, True))
    ],
    [
      packed.random_sample(config, rng, size, image) for size, image in ((2, 0), (7, 1))
    ],
  ]
  batch = supervise(packed.pack(config, rows, 64), rows)
  logits, token_losses = map(np.asarray, run(config, params, batch))
  for row, samples in enumerate(rows):
    start = learned = 0
    for tokens, pixels in samples:
      wanted = torch_logits(model, config, tokens, pixels)
      assert wanted.std() > 0.3  # or the tolerance would say nothing
      found = logits[row, start : start + len(tokens)]
      np.testing.assert_allclose(found, wanted, atol=tolerance)
      loss = torch.nn.functional.cross_entropy(
        torch.tensor(wanted[:-1]), torch.tensor(tokens[1:])
      )
      own = token_losses[row, learned : learned + len(tokens) - 1].mean()
      np.testing.assert_allclose(own, loss, rtol=tolerance)
      start += len(tokens)
      learned += len(tokens) - 1


@pytest.mark.parametrize("name", CASES)
def test_transformers_agrees_on_what_we_write(tmp_path, name):
  base = tiny.make_base(tmp_path / "base", **CASES[name])
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "out", config, params, base)
  assert_agree(load_torch(tmp_path / "out"), config, params)


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)
@hypothesis.given(overrides())
def test_transformers_agrees_whatever_the_configuration(chosen):
  with tempfile.TemporaryDirectory() as folder:
    base = tiny.make_base(pathlib.Path(folder) / "base", **chosen)
    config = huggingface.read_config(base)
    params = packed.random_params(config)
    huggingface.write_model(pathlib.Path(folder) / "out", config, params, base)
    assert_agree(load_torch(pathlib.Path(folder) / "out"), config, params)


def test_we_agree_on_what_transformers_writes(tmp_path):
  # As version 5 saves a fresh model: its own tensor names, in shards.
  base = tiny.make_base(tmp_path / "base")
  model = load_torch(base)
  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  folder = tmp_path / "saved"
  model.save_pretrained(folder, max_shard_size="100KB")
  assert (folder / "model.safetensors.index.json").exists()
  for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
    (folder / name).write_bytes((base / name).read_bytes())
  config = huggingface.read_config(folder)
  assert_agree(model, config, huggingface.read_params(folder, config))


def test_a_fresh_model_of_transformers_is_read(tmp_path):
  hf_config = tiny.make_hf_config()
  torch.manual_seed(0)
  model = transformers.LlavaForConditionalGeneration(hf_config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model.save_pretrained(tmp_path)
  # The names that version 4 does not know.
  assert "vision_tower.pre_layrnorm.weight" in bases.read_tensors(tmp_path)
  tiny.make_tokenizer().save_pretrained(tmp_path)
  tiny.make_image_processor().save_pretrained(tmp_path)
  config = huggingface.read_config(tmp_path)
  assert_agree(model, config, huggingface.read_params(tmp_path, config))
