"""Exports of Qwen-VL, loaded by transformers 4 and 5: their tensors and logits.

    python -m benchmarks.export_native --python=PYTHON

PYTHON is the interpreter of an environment with transformers 4.57, torch and pillow.
The models are the tiny ones of tests/models/huggingface/test_native_parity.py, with a
row of text and two images. Printed are the largest differences of the logits from ours.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def export(folder: Path) -> list[str]:
  """Writes each model with a row and its logits; returns the names of the models."""
  import numpy as np

  from mllm_selector_jax.models import huggingface
  from tests.models import native_inputs, packed, tiny
  from tests.models.huggingface.test_native_parity import CASES
  from tests.models.huggingface.test_parity import run

  for number, case in enumerate(CASES.values()):
    own = folder / str(number)
    base = tiny.make_base(own / "base", **case)
    config = huggingface.read_config(base)
    params = packed.random_params(config)
    huggingface.write_model(own / "out", config, params, base)
    parts = (5, (5, 7), 4, (1, 1), 2)
    example = native_inputs.draw_sample(config, np.random.default_rng(0), parts)
    # Version 4 finds images by their marks, of which the text must have none.
    inside = np.zeros(len(example[0].tokens), bool)
    for image in example[0].images:
      inside[image.start : image.stop] = True
    example[0].tokens[~inside] = example[0].tokens[~inside].clip(min=20)
    batch = native_inputs.pack_rows(config, [[example]], 64)
    logits, _ = run(config, params, batch)
    row = native_inputs.make_torch_row(config, example)
    del row["mm_token_type_ids"]  # unknown to version 4
    arrays = {name: value.numpy() for name, value in row.items()}
    np.savez(own / "row", logits=np.asarray(logits[0, : len(inside)]), **arrays)
  return list(CASES)


def read(folder: Path) -> None:
  """Prints what the installed transformers finds, as a line of JSON."""
  import numpy as np
  import torch
  import transformers

  rows = []
  for number in range(len(list(folder.iterdir()))):
    own = folder / str(number)
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
      own / "out", output_loading_info=True, dtype=torch.float32
    )
    arrays = dict(np.load(own / "row.npz"))
    logits = arrays.pop("logits")
    inputs = {name: torch.tensor(array) for name, array in arrays.items()}
    if transformers.__version__.startswith("5."):
      inputs["mm_token_type_ids"] = (inputs["input_ids"] == 4).int()
    with torch.no_grad():
      found = model.eval()(**inputs).logits[0].numpy()
    whole = not any(info[problem] for problem in PROBLEMS)
    rows.append(("yes" if whole else "no", f"{np.abs(found - logits).max():.1e}"))
  print(json.dumps({"version": transformers.__version__, "rows": rows}))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--python", action="append", default=[])
  parser.add_argument("--read", type=Path)
  flags = parser.parse_args()
  if flags.read:
    read(flags.read)
    return
  with tempfile.TemporaryDirectory() as temporary:
    names, results = export(Path(temporary)), []
    for python in (*flags.python, sys.executable):
      command = [python, __file__, "--read", temporary]
      done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
      results.append(json.loads(done.stdout.splitlines()[-1]))
  print("| model | transformers | all tensors, and no other | logits |")
  print("|---|---|---|---|")
  for number, name in enumerate(names):
    for result in results:
      whole, difference = result["rows"][number]
      print(f"| {name} | {result['version']} | {whole} | {difference} |")


if __name__ == "__main__":
  main()
