"""A small pool with rows of 0, 1 and 3 images through a whole run, family by family."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from mllm_selector_jax.data.packing import assembly, loader
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.inputs import base_model as opened
from mllm_selector_jax.models import huggingface, mllm
from mllm_selector_jax.scoring.score_table import read_scores
from mllm_selector_jax.stages import COMMANDS
from tests import pixtral_files, small_run
from tests.models import tiny
from tests.models.huggingface.test_image_options import (
  InternVLProcessor,
  LlavaOnevisionProcessor,
)
from tests.models.huggingface.test_parity import load_torch
from tests.real_processes import start, write_config

torch.set_num_threads(1)
FAMILIES = {
  "llava": ("llama", "vicuna_v1"),
  "internvl": ("qwen2", "chatml"),
  "llava_next": ("llama", "vicuna_v1"),
  "llava_onevision": ("qwen2", "chatml"),
  "vipllava": ("llama", "vicuna_v1"),
  "pixtral": ("mistral", "vicuna_v1"),
  "mistral3": ("ministral3", "chat"),
}
PROCESSORS = {
  "llava": transformers.LlavaProcessor,
  "internvl": InternVLProcessor,
  "llava_next": transformers.LlavaNextProcessor,
  "llava_onevision": LlavaOnevisionProcessor,
  "vipllava": transformers.LlavaProcessor,
  "pixtral": pixtral_files.PixtralProcessor,
  "mistral3": pixtral_files.PixtralProcessor,
}
SYSTEM = "Answer the question."
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
LENGTH = 448
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
  "evaluate.max_new_tokens": 2,
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
  asked = [{"question": "Is there a star?"}, {"question": "What?", "image": "q.png"}]
  lines = [{"id": n, "answers": ["yes"], **one} for n, one in enumerate(asked)]
  (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
  return {
    "pool.data": str(folder / "pool.json"),
    "pool.images": str(folder / "images"),
    "evaluate.tasks": str(folder / "questions.jsonl"),
  }


def make_base(folder, family):
  """A tiny base whose tokenizer names what the family's processor asks for."""
  decoder, _ = FAMILIES[family]
  base = tiny.make_base(
    folder, family=family, decoder=decoder, max_position_embeddings=2 * LENGTH
  )
  _, _, _, token, marks = tiny.FAMILIES[family]
  special = (*tiny.SPECIAL[:4], token, "<|im_start|>", "<|im_end|>", "<img>", "</img>")
  turns = (*pixtral_files.SYSTEM, *pixtral_files.TURN)
  special = dict.fromkeys((*special, "<video>", *turns, *marks))
  core = tiny.make_tokenizer(318, tuple(special))
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core.backend_tokenizer,
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    pad_token="<pad>",
    extra_special_tokens={
      "start_image_token": "<img>",
      "end_image_token": "</img>",
      "context_image_token": token,
      "video_token": "<video>",
    },
  )
  if FAMILIES[family][1] == "chat":
    tokenizer.chat_template = pixtral_files.SOURCE
  tokenizer.save_pretrained(base)
  return base


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tmp_path_factory):
  """A whole run of a family in a process of its own."""
  family, folder = request.param, tmp_path_factory.mktemp(request.param)
  base, work = make_base(folder / "base", family), folder / "work"
  settings = {
    **RUN,
    **write_pool(folder / "pool"),
    "model.conversation": FAMILIES[family][1],
  }
  process = start(work, write_config(folder / "config.py", base, **settings), "run")
  _, told = process.communicate(timeout=500)
  assert process.returncode == 0, told
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
  assert results["overall"]["count"] == 2 and results["aside"]["count"] == 0
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


def load_processor(family, folder):
  """The family's own processor, with the files of the directory."""
  images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  fields = json.loads((folder / "processor_config.json").read_text())
  assert fields.pop("processor_class") == PROCESSORS[family].__name__
  return PROCESSORS[family](images, tokenizer, **fields)


def write_text(family, record):
  """A row as the family's processor takes it, the template written out."""
  token = tiny.FAMILIES[family].token
  values = [turn["value"].replace("<image>", token) for turn in record["conversations"]]
  rounds = zip(values[::2], values[1::2], strict=True)
  if FAMILIES[family][1] == "vicuna_v1":
    rows = [f"USER: {asked} ASSISTANT: {answer}</s>" for asked, answer in rounds]
    return f"{SYSTEM} " + "".join(rows)
  if FAMILIES[family][1] == "chat":
    # Line breaks around an image are of LLaVA's form, not of the text.
    bare = re.compile(rf"\n*{re.escape(token)}\n*")
    rows = [
      f"[INST]{bare.sub(token, asked)}[/INST]{answer}</s>" for asked, answer in rounds
    ]
    return f"[SYSTEM_PROMPT]{SYSTEM}[/SYSTEM_PROMPT]" + "".join(rows)
  return f"<|im_start|>system\n{SYSTEM}<|im_end|>\n" + "".join(
    f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    for asked, answer in rounds
  )


def torch_losses(made, folder, reader, rows):
  """Losses by transformers' own processor and model; its tokens must be ours."""
  model, processor = load_torch(folder), load_processor(made.family, folder)
  losses = []
  for row in rows:
    record = make_records()[row]
    paths = [made.settings["pool.images"] + f"/{n}" for n in record.get("image", ())]
    images = [PIL.Image.open(path) for path in paths]
    text = write_text(made.family, record)
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
