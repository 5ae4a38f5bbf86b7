"""Exports of every family and form of tokenizer, in several versions of transformers.

  python benchmarks/export_matrix.py [--python=PYTHON]...

PYTHON is the interpreter of an environment with another transformers, torch, pillow,
sentencepiece and protobuf. A tiny base of each family is made, given weights that end
a short answer, and exported as a tune does it. Each version then loads the directory,
with nothing but the directory, and the table says of each export what worked:

  tokenizer     it loads, special tokens have our ids, a text has our tokens
  processor     it loads, a question with an image has our tokens and patches
  model         every tensor was loaded and none is left over
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
import torch
import transformers

from benchmarks.pool_columns import bind_images

STEPS = ("tokenizer", "processor", "model", "first answer", "stop")
QUESTION, ANSWER_TOKENS = "What colour is it?", 12
TEXT = "What is the colour? é two\n lines"
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
  """A base: its parts, the form of its tokenizer, and how it is asked."""

  decoder: str
  tower: str
  tokenizer: str  # json, qwen2 (special tokens by name) or model (sentencepiece)
  conversation: str
  form: str = "base"  # or assembled, or original (LLaVA's own checkpoint)
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
  words += ["" if family.form == "base" else family.form]
  words += [name for name, value in family.fields if value is True]
  words += [value for name, value in family.fields if name == "family"]
  return ", ".join(filter(None, words))


def make_source(folder: Path, family: Family) -> Path:
  """The directory of a tiny base."""
  from mllm_selector_jax.models import huggingface
  from tests.models import tiny
  from tests.models.huggingface import loose

  fields = {"vocab_size": 512, **dict(family.fields)}
  source = folder / "source"
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
  from mllm_selector_jax.data.images.image_forms import square_form
  from mllm_selector_jax.data.tokens import conversation, template_source
  from mllm_selector_jax.models import huggingface
  from tests.fixed_images import ONE_IMAGE
  from tests.models import packed

  source = make_source(folder, family)
  config = huggingface.read_config(source)
  tokenizer, options = huggingface.read_processor(source)
  encoder = conversation.make_encoder(
    family.conversation, tokenizer, bind_images(config, options), 2048
  )
  template, exact = template_source.make_chat_template(encoder)
  prompt = encoder.prompt(QUESTION, ONE_IMAGE)
  pixels = square_form.to_pixels(PIL.Image.open(folder / "image.png"), options)
  end = encoder.answers.ends[0]
  endings = (
    _make_ending(
      config, packed.random_params(config, seed), prompt, pixels, end, tokenizer
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
  return out


def _make_ending(config, params, prompt, pixels, end: int, tokenizer):
  """Parameters by which an answer ends after some tokens, and that answer, or None.

  The head's row of a token that the answer reaches is exchanged with the end's. Rows
  that are no token's are 0: a trained model does not choose them either.
  """
  from mllm_selector_jax.evaluation import generation

  batch = generation.make_prompts([prompt], [(pixels[None],)], config, rows=1)
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


def read(folder: Path) -> dict[str, str]:
  """What this version of transformers makes of folder/out: a word for each step."""
  ours = json.loads((folder / "ours.json").read_text())
  found: dict[str, str] = {}
  loaded: dict[str, Any] = {}

  def attempt(step, function):
    try:
      found[step] = function()
    except Exception as error:  # whatever it is, it is what a user would see
      lines = str(error).strip().splitlines() or [""]
      found[step] = f"no: {type(error).__name__}: {lines[0][:80]}"

  def read_tokenizer():
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "out")
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ours["special"]}
    if ids != ours["special"]:
      return "no: other ids of special tokens"
    for name, token in ids.items():
      if tokenizer(name, add_special_tokens=False)["input_ids"] != [token]:
        return f"no: {name} is text"
    return "yes" if tokenizer(TEXT)["input_ids"] == ours["text"] else "no: other tokens"

  def read_processor():
    processor = transformers.AutoProcessor.from_pretrained(folder / "out")
    parts = [
      {"type": "image", "path": str(folder / "image.png")},
      {"type": "text", "text": QUESTION},
    ]
    loaded["inputs"] = processor.apply_chat_template(
      [{"role": "user", "content": parts}],
      add_generation_prompt=True,
      tokenize=True,
      return_dict=True,
      return_tensors="pt",
    )
    same = loaded["inputs"]["input_ids"][0].tolist() == ours["prompt"]
    return "yes" if same else "no: another prompt"

  def read_model():
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
      folder / "out", output_loading_info=True, dtype=torch.float32
    )
    loaded["model"] = model.eval()
    problems = ("missing_keys", "unexpected_keys", "mismatched_keys")
    wrong = [f"{kind} {name}" for kind in problems for name in info[kind]]
    return f"no: {wrong[0]}" if wrong else "yes"

  def answer():
    inputs = loaded["inputs"]
    with torch.no_grad():
      ids = loaded["model"].generate(**inputs, max_new_tokens=ANSWER_TOKENS)
    loaded["ids"] = ids[0, inputs["input_ids"].shape[1] :].tolist()
    first = loaded["ids"][: len(ours["answer"])]
    return "yes" if first == ours["answer"] else "no: another answer"

  def stop():
    return "yes" if loaded["ids"] == ours["answer"] else "no: goes on"

  steps = (read_tokenizer, read_processor, read_model, answer, stop)
  for step, function in zip(STEPS, steps, strict=True):
    attempt(step, function)
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--python", action="append", default=[], help="an interpreter")
  parser.add_argument("--read", nargs="+", help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.read:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    found = {"version": transformers.__version__}
    found["rows"] = [read(Path(folder)) for folder in flags.read]
    print(json.dumps(found))
    return
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
      command = [python, __file__, "--read", *map(str, folders)]
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
