"""Exports of each family, loaded by transformers 4 and 5, beside ours.

  python benchmarks/export_v4.py [--python=PYTHON]

PYTHON is the interpreter of an environment with transformers 4.57, torch and
pillow; without it, one is made in a temporary folder by venv and pip. A tiny base
of each family is exported as a tune does it. Both versions must load every tensor
and no other, and write the tokens and the mask that we train on; printed are the
differences of their pixels and logits, from each other and from ours.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import PIL.Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.pool_columns import bind_images
from mllm_selector_jax import losses
from mllm_selector_jax.data.images.image_forms import square_form
from mllm_selector_jax.data.tokens import conversation, template_source
from mllm_selector_jax.models import huggingface, mllm, vision
from tests.fixed_images import ONE_IMAGE
from tests.models import packed, tiny

FAMILIES = {
  "llama_clip": ("vicuna_v1", {}),
  "llama_biases": ("llama-2", {"attention_bias": True}),
  "llama3_rope": (
    "vicuna_v1",
    {
      "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
      }
    },
  ),
  "linear_rope": (
    "vicuna_v1",
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
  ),
  "mistral_clip": ("llama-2", {"decoder": "mistral", "sliding_window": 16}),
  "qwen2_siglip": ("chatml", {"decoder": "qwen2", "tower": "siglip_vision_model"}),
  "qwen2_tied_siglip": (
    "chatml",
    {
      "decoder": "qwen2",
      "tower": "siglip_vision_model",
      "tie_word_embeddings": True,
      "llava_vision_feature_layer": -1,
    },
  ),
}
TALK = [
  {"from": "human", "value": "<image>\nWhat is it?"},
  {"from": "gpt", "value": "A star."},
  {"from": "human", "value": "How many?"},
  {"from": "gpt", "value": "two"},
]
MESSAGES = [
  {
    "role": "user",
    "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}],
  },
  {"role": "assistant", "content": [{"type": "text", "text": "A star."}]},
  {"role": "user", "content": [{"type": "text", "text": "How many?"}]},
  {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
]
PACKAGES = ("transformers==4.57.*", "pillow", "torch")


def make_environment(folder: Path) -> str:
  """A fresh environment with transformers 4; returns its interpreter."""
  venv.create(folder, with_pip=True)
  python = str(folder / "bin" / "python")
  torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"
  command = [python, "-m", "pip", "install", "--quiet", *PACKAGES[:-1], torch]
  subprocess.run(command, check=True)
  return python


def export(folder: Path, name: str, image: PIL.Image.Image) -> dict[str, np.ndarray]:
  """Writes folder/name; returns our tokens, mask, pixels and logits."""
  template, overrides = FAMILIES[name]
  base = tiny.make_base(folder / f"{name}.base", **overrides)
  special = (*tiny.SPECIAL, "<|im_start|>", "<|im_end|>")
  tiny.make_tokenizer(300, special).save_pretrained(base)
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  tokenizer, options = huggingface.read_processor(base)
  encoder = conversation.make_encoder(
    template, tokenizer, bind_images(config, options), 2048
  )
  source, exact = template_source.make_chat_template(encoder)
  assert exact, name
  huggingface.write_model(folder / name, config, params, base, options, source)
  sample = encoder.encode(TALK, ONE_IMAGE)
  pixels = square_form.to_pixels(image, options)
  batch = packed.pack(config, [[(sample.tokens, pixels)]], len(sample.tokens))
  hidden = mllm.hidden_states(config, params, batch)[0]
  logits = hidden @ mllm.head(config, params).astype(hidden.dtype)
  logits = np.asarray(losses.cap_logits(logits, config.decoder.logit_cap))
  normal = vision.normalise_pixels(pixels[None], config.image_mean, config.image_std)
  return {
    "ids": sample.tokens,
    "mask": sample.supervised,
    "pixels": np.asarray(normal[0]).transpose(2, 0, 1),
    "logits": logits,
    "image_token": config.image_token,
    "patches": config.patches,
  }


def check(name: str, ours: dict, found: dict[str, dict]) -> None:
  """Asserts what must be equal and prints what may differ."""
  for version, theirs in found.items():
    problems = theirs["problems"].tolist()
    assert not problems, (name, version, problems)
    assert theirs["classes"].tolist() == [
      "LlavaForConditionalGeneration",
      "LlavaProcessor",
    ]
    assert theirs["ids"].tolist() == ours["ids"].tolist(), (name, version)
    copies = np.where(theirs["mask_ids"] == ours["image_token"], ours["patches"], 1)
    mask = np.repeat(theirs["mask"], copies).astype(bool)
    assert mask.tolist() == ours["mask"].tolist(), (name, version)
  four, five = found.values()

  def distance(key, first, second):
    return float(np.abs(first[key].astype(np.float64) - second[key]).max())

  print(
    f"| {name} | {len(ours['ids'])} | {distance('pixels', four, five):.1e} |"
    f" {distance('logits', four, five):.1e} | {distance('pixels', four, ours):.1e} |"
    f" {distance('logits', four, ours):.1e} | {np.abs(ours['logits']).max():.2f} |"
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--python", help="of an environment with transformers 4.57")
  python = parser.parse_args().python
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    python = python or make_environment(folder / "environment")
    rng = np.random.default_rng(0)
    image = PIL.Image.fromarray(rng.integers(0, 256, (20, 47, 3), dtype=np.uint8))
    image.save(folder / "image.png")
    (folder / "messages.json").write_text(json.dumps(MESSAGES))
    ours = {name: export(folder, name, image) for name in FAMILIES}
    reader = str(Path(__file__).with_name("export_reader.py"))
    versions = []
    for interpreter in (python, sys.executable):
      command = [interpreter, reader, str(folder), *FAMILIES]
      done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
      versions.append(done.stdout.split()[-1])
    print("transformers", " and ".join(versions))
    print(
      "| family | tokens | pixels 4-5 | logits 4-5 | pixels 4-ours | logits", end=""
    )
    print(" 4-ours | largest logit |\n|---|---|---|---|---|---|---|")
    for name in FAMILIES:
      found = {
        version: dict(np.load(folder / f"{name}.{version}.npz")) for version in versions
      }
      check(name, ours[name], found)
  print("every tensor loaded, none left over; tokens and masks are ours in both")


if __name__ == "__main__":
  main()
