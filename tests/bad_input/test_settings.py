"""Bases, budgets and sizes that cannot be: one message each."""

import os
import pickle

import pytest

from mllm_selector_jax.main import run
from mllm_selector_jax.runs import holder
from tests.bad_input.pools import talk, write_pool
from tests.models import tiny
from tests.models.huggingface import bases


@pytest.mark.parametrize("budget", ["0", "-1", "0.001%", "200%"])
def test_a_budget_that_keeps_nothing_or_more_than_all(command, tmp_path, base, budget):
  write_pool(tmp_path, [talk("a"), talk("b")])
  settings = {"score__model": base}
  assert command("check")[0] == 0
  # Only the last is a budget of a larger pool.
  first = command("score", select__budget=budget, **settings)[0]
  assert first == (0 if budget == "0.001%" else 2)
  assert command("score", **settings)[0] == 0
  status, said = command("select", select__budget=budget, **settings)
  assert status == 2 and f"select.budget is {budget}" in said.replace("'", "")


def test_a_budget_above_the_pool_keeps_all_and_warns(command, tmp_path, base):
  write_pool(tmp_path, [talk("a"), talk("b")])
  settings = {"score__model": base, "select__budget": "3"}
  assert command("check")[0] == command("score", **settings)[0] == 0
  status, said = command("select", **settings)
  assert status == 0 and "all are kept" in said and "keeps 2 of 2" in said


def spoil(folder):
  def change(tensors):
    name = sorted(tensors)[0]
    tensors["surprise"] = tensors[name]
    del tensors[name]
    last = sorted(tensors)[0]
    tensors[last] = tensors[last][..., None]

  bases.edit_tensors(folder, change)


def pickle_weights(folder):
  (folder / "model.safetensors").unlink()
  (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def forget_image_token(folder):
  tiny.make_tokenizer(300, tiny.SPECIAL[:4]).save_pretrained(folder)


def set_config(**values):
  def change(folder):
    bases.edit_json(folder / "config.json", lambda config: config.update(values))

  return change


def stretch_positions(folder):
  def change(config):
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config["text_config"].update(rope_parameters=scaling, max_position_embeddings=16)

  bases.edit_json(folder / "config.json", change)


def scale_queries(folder):
  def change(config):
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
    rope |= {"original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.1}
    config["text_config"].update(
      model_type="ministral3", head_dim=8, rope_parameters=rope
    )

  bases.edit_json(folder / "config.json", change)


def make_tokenizer_larger(folder):
  tokenizer = tiny.make_tokenizer(300)
  tokenizer.add_tokens([f"<extra {n}>" for n in range(40)])
  tokenizer.save_pretrained(folder)


def cut_a_shard(folder):
  bases.shard(folder, 2)
  path = folder / "model-00002-of-00002.safetensors"
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_a_shard(folder):
  bases.shard(folder, 2)
  (folder / "model-00002-of-00002.safetensors").unlink()


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      set_config(model_type="git"),
      ("model_type is 'git', a vision-language family", "supported are 'llava'"),
    ),
    (
      set_config(text_config={"model_type": "falcon"}),
      ("'falcon'; supported are llama, mistral, qwen2",),
    ),
    (
      stretch_positions,
      ("rope_type 'dynamic'", "beyond 16 tokens", "--config.model.max_length=16"),
    ),
    (
      scale_queries,
      ("llama_4_scaling_beta 0.1", "beyond 16 tokens", "--config.model.max_length=16"),
    ),
    (
      make_tokenizer_larger,
      ("the tokenizer has 340 tokens", "vocab_size of 320", "must not be smaller"),
    ),
    (cut_a_shard, ("model-00002-of-00002.safetensors is not a whole", "cut off")),
    (lose_a_shard, ("names files that are missing: model-00002-of-00002",)),
    (spoil, ("missing: ", "unexpected: surprise", "misshapen: ")),
    (pickle_weights, ("pytorch_model.bin", "never read", "convert")),
    (forget_image_token, ("<image>",)),
    (lambda folder: (folder / "config.json").unlink(), ("config.json is missing",)),
  ],
  ids=[
    "architecture",
    "decoder",
    "stretched positions",
    "scaled queries",
    "vocabulary",
    "half a shard",
    "absent shard",
    "tensors",
    "pickle",
    "image token",
    "no config",
  ],
)
def test_a_base_that_cannot_be_used_is_refused_at_the_start(
  command, tmp_path, base, change, words
):
  folder = bases.copy(base, tmp_path / "base")
  change(folder)
  write_pool(tmp_path, [talk("a"), talk("b")])
  status, said = command("run", model__path=folder)
  assert status == 2
  for word in words:
    assert word in said
  assert not (tmp_path / "work/pool.parquet").exists()  # nothing long was begun


@pytest.mark.parametrize("name", ["model", "reference"])
@pytest.mark.parametrize(
  ("file", "words"),
  [("adapter_config.json", "an adapter for peft"), ("x.gguf", "llama.cpp")],
)
def test_a_model_that_scores_is_looked_at_before_the_pool(
  command, tmp_path, name, file, words
):
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / file).write_text("{}")
  write_pool(tmp_path, [talk("a"), talk("b")])
  status, said = command("run", **{f"score__{name}": tmp_path / "other"})
  assert status == 2 and words in said
  assert not (tmp_path / "work/pool.parquet").exists()


def test_a_loss_that_is_no_number(command, tmp_path):
  write_pool(tmp_path, [talk(f"name-{n}", answer=str(n)) for n in range(8)])
  assert command("check")[0] == 0
  status, said = command(
    "seed",
    seed__rows="100%",
    seed__learning_rate=1e30,
    seed__clip=1e30,
    seed__warmup=0.0,
    seed__epochs=4,
  )
  assert status == 1 and "nan" in said and "row 0 (id name-0)" in said
  assert not (tmp_path / "work/seed").exists()


@pytest.mark.parametrize(
  ("stage", "settings", "words"),
  [
    ("score", {"score__row_length": 10**15}, "score.row_length=1,000"),
    ("score", {"score__batch_rows": 0}, "score.batch_rows=0"),
    ("seed", {"seed__row_length": 10**15}, "seed.row_length=1,000"),
    ("seed", {"seed__batch": 0}, "batch=0"),
    ("seed", {"seed__rows": "0"}, "seed.rows"),
    ("seed", {"seed__accumulate": 0}, "accumulate=0"),
    ("seed", {"seed__accumulate": 33}, "accumulate=33 parts of a batch of 32"),
    ("seed", {"seed__spike": 0.5}, "above 1, or 0"),
    ("seed", {"model__remat": "True"}, "none, full, dots"),
    ("seed", {"mesh__data": 3}, "does not fill the 8 devices"),
    ("seed", {"mesh__tensor": 8}, "tensor=8 does not divide the model's heads"),
    ("seed", {"seed__lora__rank": -1}, "seed.lora.rank=-1"),
    ("seed", {"seed__lora__rank": 2, "seed__lora__alpha": 0.0}, "alpha=0.0"),
    ("seed", {"seed__lora__rank": 2, "seed__trainable": "all"}, "must be 'decoder'"),
    ("seed", {"seed__lora__modules": "llm"}, "llm is no part of a model that can have"),
    ("score", {"score__model": "nowhere"}, "score.model=nowhere"),
  ],
)
def test_sizes_that_cannot_be(command, tmp_path, base, stage, settings, words):
  write_pool(tmp_path, [talk("a"), talk("b")])
  assert command("check")[0] == 0
  settings = {"score__model": base, "seed__rows": "100%", **settings}
  status, said = command(stage, **settings)
  assert status == 2 and words in said


def test_a_workdir_in_use_and_one_that_cannot_be_written(tmp_path, base, capsys):
  given = ["check", "--config=demo", f"--config.model.path={base}"]
  with holder.lock(tmp_path / "work"):
    assert run(["x", *given, f"--workdir={tmp_path / 'work'}"]) == 2
  assert f"process {os.getpid()} on host" in capsys.readouterr().err
  (tmp_path / "file").write_text("")
  assert run(["x", *given, f"--workdir={tmp_path / 'file' / 'work'}"]) == 2
  assert "cannot be written to" in capsys.readouterr().err


def test_a_batch_need_not_divide_the_mesh_but_idle_devices_are_told(
  command, tmp_path, base
):
  write_pool(tmp_path, [talk(f"name-{n}") for n in range(5)])
  assert command("check")[0] == 0
  settings = {"seed__rows": "100%", "seed__epochs": 1, "mesh__data": 8}
  status, said = command("seed", seed__batch=5, **settings)
  assert status == 0 and "nothing but padding" in said
