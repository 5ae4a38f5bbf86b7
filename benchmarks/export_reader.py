"""Reads exported models with whichever transformers runs it; see export_v4.py.

  PYTHON benchmarks/export_reader.py FOLDER NAME...

Of each model FOLDER/NAME: the chat template, the tokens, the mask, the pixels and
the logits of one conversation with an image, and what the loading missed, into
FOLDER/NAME.VERSION.npz. Knows nothing of mllm_selector_jax.
"""

import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import transformers


def read(folder: Path, messages: list, image: PIL.Image.Image) -> dict:
  """What transformers makes of the conversation with the model in a folder."""
  five = transformers.__version__.startswith("5")
  slow = {"backend": "pil"} if five else {"use_fast": False}
  processor = transformers.AutoProcessor.from_pretrained(folder, **slow)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  model, info = transformers.LlavaForConditionalGeneration.from_pretrained(
    folder, output_loading_info=True, dtype=torch.float32
  )
  model.eval()
  text = processor.apply_chat_template(messages, tokenize=False)
  given = processor(
    images=image, text=text, add_special_tokens=False, return_tensors="pt"
  )
  marked = tokenizer.apply_chat_template(
    messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
  )
  with torch.no_grad():
    logits = model(**given).logits[0]
  problems = [
    f"{kind}: {name}"
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
    for name in info[kind]
  ]
  return {
    "ids": given["input_ids"][0].numpy(),
    "pixels": given["pixel_values"][0].numpy(),
    "logits": logits.numpy(),
    "mask": np.array(marked["assistant_masks"]),
    "mask_ids": np.array(marked["input_ids"]),
    "problems": np.array(problems, str),
    "classes": np.array([type(model).__name__, type(processor).__name__]),
  }


def main(argv: list[str]) -> None:
  torch.set_num_threads(1)
  folder, names = Path(argv[0]), argv[1:]
  messages = json.loads((folder / "messages.json").read_text())
  image = PIL.Image.open(folder / "image.png")
  for name in names:
    found = read(folder / name, messages, image)
    np.savez(folder / f"{name}.{transformers.__version__}.npz", **found)
  print(transformers.__version__)


if __name__ == "__main__":
  main(sys.argv[1:])
