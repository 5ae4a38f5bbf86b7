"""Which published forms of models run? Each is made tiny, and goes through the stages.

    JAX_PLATFORMS=cpu python -m benchmarks.families [--only=qwen,SmolVLM]

Every form of `benchmarks/family_forms.py` is written to a folder by transformers, with
random weights. Then these are run on drawn rows with and without images, and the table
says of each what worked, or what a user is told instead:

  check   the pool and the base are checked: usable rows of all rows
  step    the base is tuned for two steps (`seed`): the losses of both
  export  transformers reads what the tuning wrote, with no tensor missing or left over:
          the largest difference of its logits from ours, on a text
  score   the tuned model scores every usable row: the mean loss
"""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import transformers

from benchmarks.family_forms import FORMS, Form

STEPS = ("check", "step", "export", "score")
ROWS, BATCH, LENGTH = 60, 4, 512
SETTINGS = {
  "pool.demo.rows": ROWS,
  "pool.demo.questions": 1,
  "model.system": "Answer the question.",
  "model.max_length": LENGTH,
  "seed.rows": "8",
  "seed.epochs": 1,
  "seed.batch": BATCH,
  "seed.row_length": LENGTH,
  "score.row_length": LENGTH,
  "score.batch_rows": 2,
}


class Result(NamedTuple):
  """What became of a form.

  Attributes:
    form: its name.
    kind: the model_type of its config.json.
    cells: what each of `STEPS` gave, as far as it came.
    refusal: what a user is told instead of the rest; "" where all of them worked.
  """

  form: str
  kind: str
  cells: list[str]
  refusal: str = ""


def try_form(form: Form, folder: Path) -> Result:
  """Makes a form's tiny model below a folder and runs the stages with it."""
  import torch

  from mllm_selector_jax.models.huggingface.source import read_json
  from mllm_selector_jax.types import InputError

  torch.manual_seed(0)
  with contextlib.redirect_stderr(io.StringIO()):
    base = form.make(folder)
  kind, cells = read_json(base / "config.json")["model_type"], []
  try:
    with contextlib.redirect_stderr(io.StringIO()):
      for cell in _run_stages(base, form.conversation, folder / "work"):
        cells.append(cell)
  except InputError as error:
    return Result(form.name, kind, cells, _shorten(str(error), folder))
  return Result(form.name, kind, cells)


def _shorten(message: str, folder: Path) -> str:
  """A message in a line, without the folder."""
  message = message.replace(f"{folder}/", "").replace(str(folder), "the folder")
  return " ".join(message.replace("|", "\\|").split())


def _run_stages(base: Path, conversation: str, work: Path) -> Iterator[str]:
  """What each of `STEPS` gives."""
  from mllm_selector_jax.data.pool.pool_table import read_table
  from mllm_selector_jax.scoring.score_table import read_scores
  from mllm_selector_jax.stages import COMMANDS
  from tests import small_run

  settings = {**SETTINGS, "model.conversation": conversation}
  with small_run.open_run(work, base, **settings) as run:
    COMMANDS["check"](run)
    pool = read_table(work / "pool.parquet")
    yield f"{pool.ok.sum()} of {len(pool.ok)}"
    COMMANDS["seed"](run)
    losses = _read_losses(work / "seed")
    yield " ".join(f"{loss:.3f}" for loss in losses)
    yield f"{_compare_export(work / 'seed/hf'):.0e}"
    COMMANDS["score"](run)
    scores = read_scores(work / "scores")
    assert len(scores.row) == pool.ok.sum()
    yield f"{scores.signal('loss').mean():.3f}"


def _read_losses(folder: Path) -> list[float]:
  """The loss of every step of a tuning."""
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line)["loss"] for line in lines]


def _compare_export(folder: Path) -> float:
  """The largest difference of logits between transformers and us, on a text."""
  import numpy as np
  import torch

  from mllm_selector_jax import losses
  from mllm_selector_jax.models import huggingface, mllm

  model, told = transformers.AutoModelForImageTextToText.from_pretrained(
    folder, output_loading_info=True, dtype=torch.float32
  )
  wrong = {key: value for key, value in told.items() if value}
  assert not wrong, wrong
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  rng = np.random.default_rng(0)
  tokens = rng.integers(20, 250, (1, 30))
  tokens = np.where(tokens == config.image_token, 19, tokens)
  with torch.no_grad():
    theirs = model.eval()(input_ids=torch.tensor(tokens)).logits.numpy()
  positions = np.arange(tokens.shape[1])[None]
  images = np.zeros((1, 0, config.tiling.side, config.tiling.side, 3), np.uint8)
  x = mllm.embed(config, params, tokens, np.full_like(tokens, -1), images)
  hidden = mllm.decode(config, params, x, positions, np.ones_like(tokens))
  logits = hidden @ mllm.head(config, params)
  ours = losses.cap_logits(logits, config.decoder.logit_cap)
  return float(np.abs(ours - theirs).max())


def print_table(results: Iterable[Result]) -> None:
  """Prints the forms that ran, and then those that were refused."""
  results = list(results)
  ran = [result for result in results if not result.refusal]
  print(f"{len(ran)} of {len(results)} forms run.\n")
  print(f"| form | model_type | {' | '.join(STEPS)} |\n|{'---|' * (2 + len(STEPS))}")
  for result in ran:
    print(f"| {result.form} | `{result.kind}` | {' | '.join(result.cells)} |")
  print("\n| refused | model_type | what a user is told |\n|---|---|---|")
  for result in results:
    if result.refusal:
      print(f"| {result.form} | `{result.kind}` | {result.refusal} |")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", default="", help="parts of names, with commas between")
  flags = parser.parse_args()
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  parts = flags.only.lower().split(",")
  results = []
  for form in FORMS:
    if not any(part in form.name.lower() for part in parts):
      continue
    with tempfile.TemporaryDirectory() as temporary:
      results.append(try_form(form, Path(temporary)))
    print(results[-1], flush=True)
  print_table(results)


if __name__ == "__main__":
  main()
