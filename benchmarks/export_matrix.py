"""Exports of every family and form of tokenizer, in several versions of transformers.

  python -m benchmarks.export_matrix [--python=PYTHON]...

PYTHON is the interpreter of an environment with another transformers, torch, pillow,
sentencepiece and protobuf, and torchvision, without which transformers does not make
the processors of InternVL and LLaVA-OneVision. It stands for its version: this
environment reads the exports if no PYTHON has its version. A tiny base of each family
is made, given weights that end a short answer, and exported as a tune does it. Each
version then loads the directory, with nothing but the directory, and the table says of
each export what worked:

  tokenizer     it loads, special tokens have our ids, a text has our tokens
  processor     it loads (its Pillow form), a question with an image has our tokens
  pixels        the largest difference of that image's pixels, normalised, from ours
  model         every tensor was loaded and none is left over
  logits        the largest difference of that question's logits from ours
  first answer  `generate` by the directory's own settings gives our answer's tokens
  stop          it ends at our end token and not later
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import transformers

from benchmarks import matrix_reader
from benchmarks.matrix_reader import ANSWER_TOKENS, QUESTION, STEPS, TEXT

CLIP, SIGLIP, DINOV2 = "clip_vision_model", "siglip_vision_model", "dinov2"
OWN_TEMPLATE = (
  "{{ bos_token }}{% for m in messages %}{{ m['role'] + ':\n' }}"
  "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
  "{% if m['role'] == 'assistant' %}{% generation %}{{ part['text'] + eos_token }}"
  "{% endgeneration %}{% else %}{{ part['text'] + '\n' }}{% endif %}{% endif %}"
  "{% endfor %}{% endfor %}"
  "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)


class Family(NamedTuple):
  """A base: its parts, the form of its tokenizer, and how it is asked.

  The families that cut images into tiles have "tiles" as their form.
  """

  decoder: str
  tower: str
  tokenizer: str  # json, qwen2 (special tokens by name) or model (sentencepiece)
  conversation: str
  form: str = "base"  # or tiles, assembled, original (LLaVA's own checkpoint)
  fields: tuple[tuple[str, Any], ...] = ()


FAMILIES = (
  Family("llama", CLIP, "json", "vicuna_v1"),
  Family("llama", CLIP, "json", "vicuna_v1", fields=(("family", "vipllava"),)),
  Family("llama", SIGLIP, "json", "llama-2"),
  Family("llama", CLIP, "json", "chat"),
  Family("llama", CLIP, "model", "vicuna_v1"),
  Family("llama", CLIP, "model", "vicuna_v1", "assembled"),
  Family("llama", CLIP, "json", "vicuna_v1", "original"),
  Family("llama", CLIP, "model", "vicuna_v1", "original"),
  Family("mistral", CLIP, "json", "llama-2", fields=(("sliding_window", 64),)),
  Family("mistral", SIGLIP, "model", "vicuna_v1"),
  Family("qwen2", CLIP, "qwen2", "chatml"),
  Family("qwen2", SIGLIP, "qwen2", "chatml", fields=(("tie_word_embeddings", True),)),
  Family("qwen2", SIGLIP, "json", "chatml"),
  Family("qwen2", SIGLIP, "qwen2", "chatml", "assembled"),
  Family("qwen3", CLIP, "qwen2", "chatml", fields=(("head_dim", 8),)),
  Family("qwen3", DINOV2, "json", "chatml", fields=(("head_dim", 12),)),
  Family("phi3", CLIP, "json", "vicuna_v1"),
  Family("phi3", SIGLIP, "json", "chatml", "assembled"),
  Family("granite", SIGLIP, "json", "chatml", fields=(("embedding_multiplier", 3.0),)),
  Family("glm4", CLIP, "json", "chatml", fields=(("head_dim", 8),)),
  Family("llama", CLIP, "json", "vicuna_v1", "tiles", (("family", "llava_next"),)),
  Family("qwen2", SIGLIP, "json", "chatml", "tiles", (("family", "llava_onevision"),)),
  Family("qwen2", "internvit", "json", "chatml", "tiles", (("family", "internvl"),)),
)


def describe(family: Family) -> str:
  """The family in a line."""
  tower = family.tower.partition("_")[0]
  kinds = {
    "json": "tokenizer.json",
    "qwen2": "Qwen2's, named",
    "model": "sentencepiece",
  }
  words = [family.decoder, tower, kinds[family.tokenizer], family.conversation]
  words += ["" if family.form in ("base", "tiles") else family.form]
  words += [name for name, value in family.fields if value is True]
  words += [value for name, value in family.fields if name == "family"]
  return ", ".join(filter(None, words))


def make_source(folder: Path, family: Family) -> Path:
  """The directory of a tiny base."""
  from mllm_selector_jax.models import huggingface
  from tests.models import tiny
  from tests.models.huggingface import loose
  from tests.stages import family_bases

  fields = {"vocab_size": 512, **dict(family.fields)}
  source = folder / "source"
  if family.form == "tiles":
    return family_bases.make_base(source, fields["family"])
  if family.form == "base":
    source = tiny.make_base(
      source,
      decoder=family.decoder,
      tower=family.tower,
      llava_vision_feature_layer=-1 if "family" not in fields else [-1, 1],
      **fields,
    )
    image = _write_tokenizer(source, family.tokenizer)
    config = json.loads((source / "config.json").read_text())
    config["image_token_index"] = image
    (source / "config.json").write_text(json.dumps(config))
    return source
  tower = folder / "tower"
  loose.save_tower(tower, family.tower.partition("_")[0])
  if family.form == "original":
    loose.save_original(source, tower)
    if family.tokenizer == "model":
      _write_tokenizer(source, "model", symbols=())
    return source
  decoder = folder / "decoder"
  loose.save_decoder(decoder, family.decoder, **fields)
  _write_tokenizer(decoder, family.tokenizer, symbols=())
  huggingface.assemble(source, decoder, tower)
  return source


def _write_tokenizer(folder: Path, kind: str, symbols=("<image>", "<pad>")) -> int:
  """Writes a tokenizer into a base; returns the id of `<image>`."""
  from tests import tokenizers_on_the_spot
  from tests.models import tiny

  if kind == "qwen2":
    return tokenizers_on_the_spot.write_qwen2(folder)
  if kind == "model":
    pad = {"pad_token": "<pad>"} if symbols else {}
    tokenizers_on_the_spot.write_sentencepiece(folder, symbols, **pad)
    return 3
  special = (*tiny.SPECIAL, "<|im_start|>", "<|im_end|>")
  tokenizer = tiny.make_tokenizer(300, special)
  tokenizer.chat_template = OWN_TEMPLATE
  tokenizer.save_pretrained(folder)
  return 4


def export(folder: Path, family: Family) -> Path:
  """Writes a family's export to folder/out, and what we make of it beside."""
  from mllm_selector_jax.data.images.image_forms import BaseImages
  from mllm_selector_jax.data.tokens import conversation, template_source
  from mllm_selector_jax.models import huggingface, vision
  from tests.models import packed

  source = make_source(folder, family)
  config = huggingface.read_config(source)
  tokenizer, options = huggingface.read_processor(source)
  images = BaseImages(options, huggingface.read_image_tokens(source, tokenizer))
  encoder = conversation.make_encoder(family.conversation, tokenizer, images, 2048)
  template, exact = template_source.make_chat_template(encoder)
  image = PIL.Image.open(folder / "image.png")
  prompt, tiles = encoder.prompt(QUESTION, [image.size]), images.cut_tiles(image)
  end = encoder.answers.ends[0]
  endings = (
    _make_ending(
      config, packed.random_params(config, seed), prompt, tiles, end, tokenizer
    )
    for seed in range(20)
  )
  params, answer = next(filter(None, endings))
  out = folder / "out"
  huggingface.write_model(
    out,
    config,
    params,
    source,
    chat_template=template,
    ends=encoder.answers.ends,
  )
  special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
  ours = {
    "exact": exact,
    "special": {name: tokenizer.convert_tokens_to_ids(name) for name in special},
    "text": tokenizer(TEXT)["input_ids"],
    "prompt": prompt.tokens.tolist(),
    "answer": answer,
    "end": end,
  }
  (folder / "ours.json").write_text(json.dumps(ours))
  normal = vision.normalise_pixels(tiles, config.image_mean, config.image_std)
  np.savez(
    folder / "ours.npz",
    pixels=np.asarray(normal).transpose(0, 3, 1, 2),
    logits=_compute_logits(config, params, prompt, tiles),
  )
  return out


def _compute_logits(config, params, prompt, tiles) -> np.ndarray:
  """The logits of a prompt, (L, V)."""
  from mllm_selector_jax import losses
  from mllm_selector_jax.data.packing import assembly, loader
  from mllm_selector_jax.models import mllm
  from tests.training import toy

  examples, rows = {0: (prompt, (tiles,))}, [[0]]
  shape = toy.find_shape(config, examples, [rows], len(prompt.tokens))
  batch, _ = assembly.assemble(
    loader.as_trees(rows), examples, shape, config.image_token
  )
  hidden = mllm.hidden_states(config, params, batch)[0]
  logits = hidden @ mllm.head(config, params).astype(hidden.dtype)
  return np.asarray(losses.cap_logits(logits, config.decoder.logit_cap))


def _make_ending(config, params, prompt, tiles, end: int, tokenizer):
  """Parameters by which an answer ends after some tokens, and that answer, or None.

  The head's row of a token that the answer reaches is exchanged with the end's. Rows
  that are no token's are 0: a trained model does not choose them either.
  """
  from mllm_selector_jax.evaluation import generation

  batch = generation.make_prompts([prompt], [(tiles,)], config, rows=1)
  generate = generation.make_generate(config, ANSWER_TOKENS, end, len(tokenizer))
  leaf = "token_embedding" if config.decoder.tied else "head"
  table = np.array(params["decoder"][leaf])
  by_token = table if config.decoder.tied else table.T
  by_token[len(tokenizer) :] = 0

  def answer():
    changed = {**params, "decoder": {**params["decoder"], leaf: table}}
    return changed, np.asarray(generate(changed, *batch))[0].tolist()

  for token in answer()[1][2:]:
    by_token[[token, end]] = by_token[[end, token]]
    changed, ids = answer()
    if end in ids and 0 < ids.index(end) < ANSWER_TOKENS - 2:
      return changed, ids[: ids.index(end) + 1]
    by_token[[token, end]] = by_token[[end, token]]
  return None


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--python", action="append", default=[], help="an interpreter")
  flags = parser.parse_args()
  sys.path.insert(0, str(Path(__file__).parents[1]))
  with tempfile.TemporaryDirectory() as temporary:
    folders = [Path(temporary) / str(n) for n in range(len(FAMILIES))]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 47, 3), dtype=np.uint8)
    for folder, family in zip(folders, FAMILIES, strict=True):
      folder.mkdir()
      PIL.Image.fromarray(pixels).save(folder / "image.png")
      export(folder, family)
    results = []
    for python in (*flags.python, sys.executable):
      if python == sys.executable and transformers.__version__ in {
        result["version"] for result in results
      }:
        continue
      command = [python, matrix_reader.__file__, *map(str, folders)]
      done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
      results.append(json.loads(done.stdout.splitlines()[-1]))
  print(f"| family | transformers | {' | '.join(STEPS)} |")
  print("|" + "---|" * (2 + len(STEPS)))
  for number, family in enumerate(FAMILIES):
    for result in results:
      cells = [result["rows"][number][step] for step in STEPS]
      print(f"| {describe(family)} | {result['version']} | {' | '.join(cells)} |")


if __name__ == "__main__":
  main()
