"""Reads exported models with whichever transformers runs it; see export_matrix.py.

  PYTHON benchmarks/matrix_reader.py FOLDER...

Prints one line of JSON: the version, and a word or a figure for each step of each
FOLDER. Knows nothing of mllm_selector_jax.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

STEPS = (
  *("tokenizer", "processor", "pixels", "model", "logits", "first answer", "stop"),
)
QUESTION, ANSWER_TOKENS = "What colour is it?", 12
TEXT = "What is the colour? é two\n lines"


def read(folder: Path) -> dict[str, str]:
  """What this version of transformers makes of folder/out: a word for each step."""
  ours = json.loads((folder / "ours.json").read_text())
  arrays = np.load(folder / "ours.npz")
  five = transformers.__version__.startswith("5")
  pillow: dict[str, Any] = {"backend": "pil"} if five else {"use_fast": False}
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
    # The one of torchvision resizes otherwise; a video's has no other form.
    processor.image_processor = transformers.AutoImageProcessor.from_pretrained(
      folder / "out", **pillow
    )
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

  def compare_pixels():
    pixels = loaded["inputs"]["pixel_values"].numpy()
    return measure(pixels.reshape(-1, *pixels.shape[-3:]), arrays["pixels"])

  def compare_logits():
    with torch.no_grad():
      logits = loaded["model"](**loaded["inputs"]).logits[0]
    return measure(logits.numpy(), arrays["logits"])

  def measure(theirs, ours):
    if theirs.shape != ours.shape:
      return f"no: {theirs.shape} beside {ours.shape}"
    return f"{np.abs(theirs - ours).max():.1e}"

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

  steps = (
    *(read_tokenizer, read_processor, compare_pixels, read_model, compare_logits),
    *(answer, stop),
  )
  for step, function in zip(STEPS, steps, strict=True):
    attempt(step, function)
  return found


def main(argv: list[str]) -> None:
  torch.set_num_threads(1)
  transformers.logging.set_verbosity_error()
  rows = [read(Path(folder)) for folder in argv]
  print(json.dumps({"version": transformers.__version__, "rows": rows}))


if __name__ == "__main__":
  main(sys.argv[1:])
