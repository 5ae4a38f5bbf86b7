"""A small pool with rows of 0, 1 and 3 images through a whole run, family by family."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import PIL.Image
import pytest
import torch

from mllm_selector_jax.data.packing import assembly, loader
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.inputs import base_model as opened
from mllm_selector_jax.models import huggingface, mllm
from mllm_selector_jax.scoring.score_table import read_scores
from mllm_selector_jax.stages import COMMANDS
from tests import exhaustive, small_run
from tests.models import tiny_qwen
from tests.models.huggingface.test_parity import load_torch
from tests.real_processes import Forked, write_config
from tests.stages.family_bases import (
  FAMILIES,
  LENGTH,
  SYSTEM,
  load_processor,
  make_base,
  write_text,
)

torch.set_num_threads(1)
# Limits that hold in the run, and then in the export's own processor.
LIMITS = {
  "qwen2_5_vl": {"model.resize_pixels": 14 * tiny_qwen.SIDE**2},
  "glm4v": {"model.resize_pixels": 14 * tiny_qwen.SIDE**2},
  "internvl": {"model.max_tiles": 3},
  "smolvlm": {"model.max_tiles": 3},
}
# Width and height of the pool's images, and of a question's.
SIZES = {"a": (37, 19), "b": (61, 83), "c": (19, 90), "d": (101, 33), "q": (50, 71)}
SINGLE, SEVERAL = ("a", "b", "d"), ("abc", "abd", "cab")
COLOURS = ("red", "green", "blue")
# The questions of a row, an image where <image> stands.
KINDS = (
  ["Which colour is it?"],
  ["Is there a circle?", "How many are there?"],
  ["<image>\nWhich colour is it?"],
  ["<image>\nIs there a triangle?", "How many squares are there?"],
  ["Is there text?", "<image>\nWhat does the text say?"],
  ["<image>\nIs it left of <image>\nor of <image>\n?"],
  ["<image>\n<image>\nWhich is red?", "<image>\nHow many are there in this?"],
)
# The questions of the evaluation, and their images.
ASKED = (
  ("Is there a star?", ""),
  ("What?", "q"),
  ("<image>\nIs it left of <image>\nor of <image>\n?", "qab"),
  ("Which of these is red?", "dqc"),
)
NEW = 6  # tokens of an answer
RUN = {
  "pool.demo.rows": 0,
  "model.system": SYSTEM,
  "model.max_length": LENGTH,
  "seed.rows": "8",
  "seed.batch": 4,
  "seed.row_length": LENGTH,
  "score.row_length": LENGTH,
  "score.batch_rows": 2,
  "score.part_rows": 8,
  "score.signals": "loss,accuracy,entropy,visual,ifd",
  "select.budget": "60%",
  "select.control": False,
  "tune.batch": 4,
  "tune.row_length": LENGTH,
  "evaluate.max_new_tokens": NEW,
}


def make_records():
  """Every kind of row, with every choice of images; the last row lacks an image."""
  records = []
  for row in range(3 * len(KINDS)):
    questions, choice = KINDS[row % len(KINDS)], row // len(KINDS)
    count = "".join(questions).count("<image>")
    images = {0: "", 1: SINGLE[choice], 3: SEVERAL[choice]}[count]
    turns = []
    for turn, question in enumerate(questions):
      turns.append({"from": "human", "value": f"{question} {COLOURS[row % 2]}"})
      turns.append({"from": "gpt", "value": f"{COLOURS[choice]} {turn + row}"})
    record = {"id": f"r{row}", "conversations": turns}
    if images:
      record["image"] = [f"{name}.png" for name in images]
    records.append(record)
  missing = {**records[5], "id": "missing", "image": ["a.png", "gone.png", "b.png"]}
  return [*records, missing]


def write_pool(folder):
  """The settings of a pool and its questions, written to a folder."""
  (folder / "images").mkdir(parents=True)
  rng = np.random.default_rng(0)
  for name, (width, height) in SIZES.items():
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / f"images/{name}.png")
  (folder / "pool.json").write_text(json.dumps(make_records()))
  lines = [
    {"id": n, "answers": ["yes"], "question": question}
    | ({"image": [f"{name}.png" for name in names]} if names else {})
    for n, (question, names) in enumerate(ASKED)
  ]
  (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
  return {
    "pool.data": str(folder / "pool.json"),
    "pool.images": str(folder / "images"),
    "evaluate.tasks": str(folder / "questions.jsonl"),
  }


@pytest.fixture(scope="module", params=exhaustive.choose(FAMILIES))
def made(request, tmp_path_factory):
  """A whole run of a family in a process of its own."""
  family, folder = request.param, tmp_path_factory.mktemp(request.param)
  base, work = make_base(folder / "base", family), folder / "work"
  settings = {
    **RUN,
    **write_pool(folder / "pool"),
    **LIMITS.get(family, {}),
    "model.conversation": FAMILIES[family][1],
  }
  config = write_config(folder / "config.py", base, **settings)
  status, told = Forked(work, config, "run").end(500)
  assert status == 0, told
  return SimpleNamespace(family=family, base=base, work=work, settings=settings)


@pytest.fixture(scope="module")
def pool(made):
  return read_table(made.work / "pool.parquet")


@pytest.fixture(scope="module")
def reader(made, pool):
  with small_run.open_run(made.work, made.base, **made.settings) as current:
    return opened.open_reader(current, pool)


def test_every_stage_is_done_and_every_row_scored_once(made, pool):
  work = made.work
  assert [pool.reason[row] for row in np.flatnonzero(~pool.ok)] == ["missing image"]
  scores = read_scores(work / "scores")
  assert scores.row.tolist() == np.flatnonzero(pool.ok).tolist() == list(range(21))
  assert set(pool.images.counts.tolist()) == {0, 1, 3}
  assert (pool.tiles >= pool.images.counts * pool.ok).all()
  assert not pool.tiles[~pool.has_image].any()
  for name in ("loss", "entropy", "visual", "ifd"):
    assert np.isfinite(scores.signal(name)).all()
  blind = scores.signal("visual") == 0
  np.testing.assert_array_equal(blind, ~pool.has_image[:21])
  results = json.loads((work / "arms/main/evaluation/results.json").read_text())
  assert results["overall"]["count"] == len(ASKED) and results["aside"]["count"] == 0
  assert "<html" in (work / "report.html").read_text()


forward = jax.jit(mllm.hidden_states, static_argnums=0)


def score_alone(folder, pool, reader, rows):
  """Losses of rows that have a packed row each, in float64 from the hidden states."""
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  step = [[row] for row in rows]
  shape = assembly.find_steps_shape(
    [step],
    assembly.Counts.of_pool(pool),
    int(pool.tokens.max()),
    config.tiling,
  )
  examples = {row: reader.read(row) for row in rows}
  batch, _ = assembly.assemble(
    loader.as_trees(step), examples, shape, config.image_token
  )
  hidden = np.asarray(forward(config, params, batch), np.float64)
  head = np.asarray(mllm.head(config, params), np.float64)
  losses = []
  for place, row in enumerate(rows):
    sample, _ = examples[row]
    (where,) = np.nonzero(sample.supervised)
    logits = hidden[place, where - 1] @ head
    if (cap := config.decoder.logit_cap) is not None:
      logits = cap * np.tanh(logits / cap)
    logits -= logits.max(1, keepdims=True)
    picked = logits[np.arange(len(where)), sample.tokens[where]]
    losses.append((np.log(np.exp(logits).sum(1)) - picked).mean())
  return losses


def test_packed_and_shared_equal_one_row_at_a_time(made, pool, reader):
  rows = list(range(21))
  alone = score_alone(made.work / "seed/hf", pool, reader, rows)
  scores = read_scores(made.work / "scores")
  np.testing.assert_allclose(scores.signal("loss"), alone, rtol=1e-5)
  assert np.ptp(alone) > 0.01


def test_sharing_changes_no_score(made, tmp_path):
  settings = {
    **made.settings,
    "score.share": False,
    "score.model": str(made.work / "seed/hf"),
  }
  with small_run.open_run(tmp_path / "work", made.base, **settings) as current:
    COMMANDS["check"](current)
    COMMANDS["score"](current)
  shared, alone = (read_scores(at / "scores") for at in (made.work, tmp_path / "work"))
  for name in ("loss", "entropy", "ifd"):
    np.testing.assert_allclose(shared.signal(name), alone.signal(name), rtol=1e-5)
  np.testing.assert_allclose(
    shared.signal("visual"),
    alone.signal("visual"),
    atol=1e-5 * shared.signal("loss").max(),
  )
  fed = [count_tokens(at) for at in (made.work, tmp_path / "work")]
  assert fed[0] < 0.9 * fed[1]


def count_tokens(work):
  """Tokens that the main pass fed."""
  summary = json.loads((work / "scores/summary.json").read_text())
  return summary["passes"]["main"]["tokens"]


def torch_losses(made, folder, reader, rows):
  """Losses by transformers' own processor and model; its tokens must be ours."""
  model, processor = load_torch(folder), load_processor(made.family, folder)
  losses = []
  for row in rows:
    record = make_records()[row]
    paths = [made.settings["pool.images"] + f"/{n}" for n in record.get("image", ())]
    images = [PIL.Image.open(path) for path in paths]
    text = write_text(made.family, record, processor)
    batch = processor(
      text=[text], images=[images] if images else None, return_tensors="pt"
    )
    sample, _ = reader.read(row)
    np.testing.assert_array_equal(batch["input_ids"][0], sample.tokens)
    with torch.no_grad():
      logits = model(**batch).logits[0, :-1]
    learned = torch.tensor(sample.supervised[1:])
    loss = torch.nn.functional.cross_entropy(
      logits[learned], batch["input_ids"][0, 1:][learned]
    )
    losses.append(float(loss))
  return losses


def test_losses_are_those_of_transformers(made, reader):
  rows = list(range(21))
  wanted = torch_losses(made, made.work / "seed/hf", reader, rows)
  found = read_scores(made.work / "scores").signal("loss")
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_answers_are_those_of_transformers(made):
  folder = made.work / "arms/main/tuned/hf"
  model, processor = load_torch(folder), load_processor(made.family, folder)
  with small_run.open_run(made.work, made.base, **made.settings) as current:
    encoder = opened.read_encoder(current)
  nameless = range(len(encoder.tokenizer), model.config.text_config.vocab_size)
  path = made.work / "arms/main/evaluation/predictions.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [(line["question"], line["images"]) for line in lines] == [
    (question.removeprefix("<image>\n") if len(names) == 1 else question,
     [f"{name}.png" for name in names])
    for question, names in ASKED
  ]  # fmt: skip
  for line, (question, names) in zip(lines, ASKED, strict=True):
    if "<image>" not in question:
      question = "<image>\n" * len(names) + question
    turns = [{"value": question}, {"value": ""}]
    text = write_text(made.family, {"conversations": turns}, processor)
    text = text.removesuffix("</s>").removesuffix("<|im_end|>\n").rstrip(" ")
    paths = [made.settings["pool.images"] + f"/{name}.png" for name in names]
    images = [PIL.Image.open(path) for path in paths]
    # A list for the row: OneVision's processor cuts an image alone into more tiles.
    images = [images] if images else None
    batch = processor(text=[text], images=images, return_tensors="pt")
    ids = model.generate(
      **batch, max_new_tokens=NEW, do_sample=False, suppress_tokens=[*nameless]
    )
    answer = ids[0, batch["input_ids"].shape[1] :].numpy()
    assert line["prediction"] == encoder.answers.read(answer)
  assert len({line["prediction"] for line in lines}) > 1


def test_the_tuned_model_is_read_again_bit_for_bit(made, pool, reader, tmp_path):
  folder = made.work / "arms/main/tuned/hf"
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  huggingface.write_model(tmp_path / "again", config, params, folder)
  first, second = small_run.read_bytes(folder), small_run.read_bytes(tmp_path / "again")
  assert first == second
  jax.tree.map(
    np.testing.assert_array_equal,
    huggingface.read_params(tmp_path / "again", config),
    params,
  )
  seed = huggingface.read_params(made.work / "seed/hf", config)
  changed = [name for name in seed["projector"] if not equal(seed, params, name)]
  assert sorted(changed) == sorted(seed["projector"])
  rows = [2, 5, 13]
  alone = score_alone(folder, pool, reader, rows)
  np.testing.assert_allclose(alone, torch_losses(made, folder, reader, rows), rtol=1e-5)


def equal(first, second, name):
  """Whether no number of a part of the projector differs."""
  pairs = (jax.tree.leaves(params["projector"][name]) for params in (first, second))
  return all(map(np.array_equal, *pairs))
