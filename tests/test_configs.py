"""Every shipped config: it loads, and has the default's keys and kinds of values."""

import ast
import dataclasses
import importlib
import pathlib
import re

import pytest
from ml_collections import ConfigDict

from mllm_selector_jax.configs import default
from mllm_selector_jax.models.config import REMAT
from mllm_selector_jax.pipeline.tuning_recipe import check_section, recipe_config
from mllm_selector_jax.training.optimizer_options import TRAINABLE, OptimizerOptions

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def load(name):
  return importlib.import_module(f"mllm_selector_jax.configs.{name}").get_config()


def flatten(cfg, prefix=""):
  for key, value in cfg.items():
    if isinstance(value, ConfigDict):
      yield from flatten(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_loads_with_valid_keys_and_values(name):
  cfg = load(name)
  wanted, found = dict(flatten(default.get_config())), dict(flatten(cfg))
  assert cfg.is_locked and found.keys() == wanted.keys()
  for key, value in found.items():
    if wanted[key] is not None:
      assert type(value) is type(wanted[key]), key
  assert cfg.model.remat in REMAT
  for section in (cfg.align, cfg.seed, cfg.tune):
    fields = dataclasses.fields(OptimizerOptions)
    OptimizerOptions(**{field.name: section[field.name] for field in fields})
    assert section.trainable in TRAINABLE
    assert section.batch % section.accumulate == 0
    check_section(section, name)


def test_a_recipe_names_what_has_adapters_only_where_it_is_not_the_decoder_alone():
  section = load("default").tune
  without = recipe_config(section)
  assert without["lora"] == {"rank": 0, "alpha": 256.0}
  section.lora.modules = "all"
  assert recipe_config(section) == without  # no LoRA
  section.lora.rank = 4
  alike = []
  for modules in ("all", "tower,decoder,projector", ["projector", "tower", "decoder"]):
    with section.unlocked(), section.ignore_type():
      section.lora.modules = modules
    alike.append(recipe_config(section)["lora"])
  assert alike == 3 * [
    {"rank": 4, "alpha": 256.0, "modules": ["decoder", "projector", "tower"]}
  ]
  with section.ignore_type():
    section.lora.modules = "decoder"
  assert recipe_config(section)["lora"] == {"rank": 4, "alpha": 256.0}


def test_llava_s_recipes_are_its_scripts():
  full, lora = load("llava15_7b"), load("llava15_7b_lora")
  align = load("llava15_7b_align")
  common = {"epochs": 1, "warmup": 0.03, "weight_decay": 0.0}
  for section, values in (
    (align.align, {"batch": 256, "learning_rate": 1e-3, "trainable": "projector"}),
    (full.tune, {"batch": 128, "learning_rate": 2e-5, "trainable": "decoder"}),
    (lora.tune, {"batch": 128, "learning_rate": 2e-4, "trainable": "decoder"}),
  ):
    assert {key: section[key] for key in common | values} == common | values
  assert lora.tune.lora.rank == 128 and lora.tune.projector_learning_rate == 2e-5
  assert align.model.conversation == "plain" and full.model.conversation == "vicuna_v1"
  assert {cfg.model.max_length for cfg in (full, lora, align)} == {2048}
  assert full.mesh.fsdp == lora.mesh.fsdp == -1
  assert full.tune.group_by_modality_length and lora.tune.group_by_modality_length
  assert not align.align.group_by_modality_length


def test_qwen_s_recipes_are_the_published_ones():
  full, lora, small = map(
    load, ("qwen25_vl_7b", "qwen25_vl_7b_lora", "qwen3_vl_4b_lora")
  )
  common = {"epochs": 1, "trainable": "decoder_only"}
  tuned = {"learning_rate": 1e-4, "warmup": 0.05, "weight_decay": 0.1}
  for section, values in (
    (full.tune, {"batch": 128, "learning_rate": 2e-7, "weight_decay": 0.01}),
    (lora.tune, {"batch": 16, **tuned}),
    (small.tune, {"batch": 32, **tuned}),
  ):
    assert {key: section[key] for key in common | values} == common | values
  assert {(s.tune.lora.rank, s.tune.lora.alpha) for s in (lora, small)} == {(8, 32.0)}
  # Tokens of the largest image: pixels over the square of 2 patches.
  assert full.model.resize_pixels // 28**2 == 576
  assert lora.model.resize_pixels // 28**2 == 1280
  assert small.model.resize_pixels // 32**2 == 1024


def list_texts():
  """Every text of the code with its place, and the documents."""
  for path in sorted((ROOT / "mllm_selector_jax").rglob("*.py")):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
  folders = (ROOT / "docs").rglob("*.md"), (ROOT / "launch").glob("*.md")
  for path in sorted([ROOT / "README.md", *folders[0], *folders[1]]):
    yield str(path.relative_to(ROOT)), path.read_text()


def test_every_option_that_a_text_names_is_one():
  cfg = default.get_config()
  sections = {key for key, value in cfg.items() if isinstance(value, ConfigDict)}
  known = {name for name, _ in flatten(cfg)}
  known |= {name.rpartition(".")[0] for name in known}
  name = rf"(?<![\w./-])(?:--config\.)?((?:{'|'.join(sections)})\.[a-z_.]*[a-z_])"
  file = re.compile(r"\.(html|json|md|parquet|py|safetensors|table|tar|txt|yaml)\b")
  wrong, found = [], set()
  for place, text in list_texts():
    for match in re.finditer(name, text):
      if not file.search(match[1]) or match[1] in known:
        found.add(match[1])
        wrong += [f"{place}: {match[0]}"] * (match[1] not in known)
  assert not wrong
  assert {"select.force_in", "pool.data", "select.search.development"} <= found
