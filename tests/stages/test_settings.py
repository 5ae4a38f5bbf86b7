"""The settings as a whole: every key alone, and what holds between them."""

import copy
import importlib
import json

import pytest
from mllm_selector_jax.configs import default

from mllm_selector_jax import main
from mllm_selector_jax.runs import context
from mllm_selector_jax.settings import check_settings
from mllm_selector_jax.settings.keys import KEYS, check_keys
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.data.pools_on_the_spot import make_record
from tests.stages.plan.wrong_values import PLAN
from tests.stages.wrong_kinds import (
  BUDGET,
  COUNT,
  NAME,
  NOT_FLAG,
  NOT_TEXTS,
  NOT_WHOLE,
  OPTIONAL_COUNT,
  OPTIONAL_SIZE,
  PATH,
  RECIPE,
  SELECT,
  SHARE,
  SIZE,
)
from tests.test_configs import NAMES

# Of every key values that none of its kind is.
WRONG = {
  "rng_seed": (1 << 40, *COUNT),
  "pool.data": NOT_TEXTS,
  "pool.images": NOT_TEXTS,
  "pool.formats": ("csv", *NOT_TEXTS),
  "pool.links": ("keep", "", None, True),
  "pool.splits": ("", None, 3),
  "pool.duplicate_ids": ("drop", "", None),
  "pool.duplicate_rows": ("drop", "", None),
  "pool.source": ("prefix:0", "prefix:x", "folder", "field:", "rule:a", "", 5),
  "pool.long_rows": ("drop", None),
  "pool.max_pixels": SIZE,
  "pool.max_images": OPTIONAL_COUNT,
  "pool.video_frames": OPTIONAL_SIZE,
  "pool.most_aside": SHARE,
  "pool.most_lost": SHARE,
  "pool.demo.rows": COUNT,
  "pool.demo.seed": COUNT,
  "pool.demo.wrong": SHARE,
  "pool.demo.misaligned": SHARE,
  "pool.demo.duplicates": SHARE,
  "pool.demo.questions": SIZE,
  "prepare.shard_rows": SIZE,
  "prepare.workers": COUNT,
  "model.path": NAME,
  "model.dtype": ("float16", None),
  "model.remat": ("True", True),
  "model.attention": ("flash", None),
  "model.conversation": ("vicuna", None),
  "model.system": (5, True),
  "model.row_system": NOT_FLAG,
  "model.chat_date": ("26 Jul 2024", "today", None, 20240726),
  "model.content_specials": (5, None, "", [3]),
  "model.box_form": ("qwen", None, 5),
  "model.pad_images": NOT_FLAG,
  "model.max_tiles": OPTIONAL_SIZE,
  "model.resize_pixels": OPTIONAL_SIZE,
  "model.max_length": (1 << 30, *SIZE),
  "mesh.data": (0, -2, *NOT_WHOLE),
  "mesh.fsdp": (0, -2, *NOT_WHOLE),
  "mesh.tensor": (0, -2, *NOT_WHOLE),
  "log.trackers": ("tensorbord", "wandb,comet", ["x"], *NOT_TEXTS),
  "align.rows": (*BUDGET, "5%flops"),
  "seed.rows": (*BUDGET, "5%flops"),
  **{f"{s}.{k}": v for s in ("align", "seed", "tune") for k, v in RECIPE.items()},
  "score.model": PATH,
  "score.table": PATH,
  "score.reference": PATH,
  "score.signals": (("lss",), ("a:b",), "loss,lss", None, (5,), True, {"a": 1}),
  "score.row_length": (1 << 30, *SIZE),
  "score.batch_rows": SIZE,
  "score.part_rows": SIZE,
  "score.share": NOT_FLAG,
  "score.threads": COUNT,
  **SELECT,
  "export_selection.arm": ("a/b", "..", *NAME),
  "export_selection.formats": ("ids,csv", ("llava", "x"), *NOT_TEXTS),
  "evaluate.tasks": ("vqa:a.json", "mme:", *NOT_TEXTS),
  "evaluate.images": NOT_TEXTS,
  "evaluate.metrics": ("bleu", *NOT_TEXTS),
  "evaluate.allow_leakage": NOT_FLAG,
  "evaluate.rules": ((("a", "("),), (("a",),), "a", None, ((1, 2),)),
  "evaluate.limit": COUNT,
  "evaluate.batch": SIZE,
  "evaluate.max_new_tokens": SIZE,
  "compare.strategies": ("klx", "", None, (), True),
  "compare.variants": (5, ["a"], True),
  "compare.published": (5, ["a"], True, "icons", "=a.json", "5=a", "a=b,a=c", "ref=a"),
  "compare.budgets": ("many", "5%,200%", "", None, (), True),
  "compare.seeds": ("x", "-1", "1.5", "", None, (), True),
  "compare.full": NOT_FLAG,
  "compare.match": ("rows", None),
  "compare.fresh_pools": NOT_FLAG,
  **PLAN,
  "report.title": (5, None),
}


def list_keys(section, prefix=""):
  for key, value in section.items():
    if hasattr(value, "items"):
      yield from list_keys(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}"


def test_every_key_has_its_check_and_wrong_values():
  every = set(list_keys(default.get_config()))
  assert set(KEYS) == every and set(WRONG) == every


@pytest.mark.parametrize("key", WRONG)
def test_a_value_that_is_none_is_refused_by_its_key(key):
  *parents, last = key.split(".")
  for value in WRONG[key]:
    cfg = copy.deepcopy(default.get_config().to_dict())
    section = cfg
    for parent in parents:
      section = section[parent]
    section[last] = value
    with pytest.raises(InputError) as refused:
      check_keys(cfg)
    told = str(refused.value)
    assert key in told and "\n" not in told, value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["run", "check", "compare"])
def test_the_shipped_configs_are_right(name, command, tmp_path):
  cfg = importlib.import_module(f"mllm_selector_jax.configs.{name}").get_config()
  with context.open_run(cfg, str(tmp_path)) as current:
    check_settings(current, command)


def test_all_that_is_wrong_is_told_at_once():
  cfg = default.get_config()
  cfg.tune.epochs, cfg.select.floor = -1, 2.0
  with pytest.raises(InputError) as refused:
    check_keys(cfg)
  assert str(refused.value).splitlines() == [
    "select.floor is 2.0; it must be a number from 0 to 1.",
    "tune.epochs=-1; it must be a whole number, 1 or more.",
  ]


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"select.groups": "foo"}, "select.groups names 'foo'; allowed are kmeans, necess"),
    ({"select.groups": "source*foo"}, "select.groups names 'foo'"),
    ({"select.normalise": "foo"}, "select.normalise names 'foo'; allowed are pool and"),
    ({"select.most": "foo=2"}, "select.most names 'foo'; allowed are .*image"),
    ({"select.least": "foo=2"}, "select.least names 'foo'; allowed are .*source"),
    ({"select.signal": "foo"}, "select.signal is 'foo', which is not a signal"),
    ({"select.signal": "visual"}, "select.signal needs the signal 'visual'"),
    ({"select.strategy": "ifd"}, "select.strategy ifd needs the signal 'ifd'"),
    ({"select.target": "given"}, "select.target is 'given' and target_shares are not"),
    ({"select.like": "a"}, "select.like is given and select.target is 'tempered'"),
    ({"select.target_shares": "[1"}, "select.target"),
    ({"select.force_in": "none.txt"}, "select.force_in=none.txt: there is no such"),
    ({"score.signals": ("excess",)}, "--config.score.reference=DIR"),
    (
      {"score.model": "nowhere"},
      "score.model=nowhere: There is no directory nowhere; a model is",
    ),
    ({"score.table": "nowhere"}, "score.table=nowhere: there is no such directory"),
    ({"tune.accumulate": 33}, "tune: accumulate=33 parts of a batch of 32"),
    ({"align.lora.rank": 4}, "align: lora.rank=4 with trainable='projector'"),
    (
      {"tune.lora.rank": 4, "tune.lora.modules": "all"},
      "trainable freezes the tower.*trainable must be 'all'",
    ),
    (
      {"tune.lora.rank": 4, "tune.lora.modules": "projector"},
      "decoder would be trained without adapters.*must be 'projector'",
    ),
    (
      {
        "tune.lora.rank": 4,
        "tune.lora.modules": "tower",
        "tune.trainable": "decoder_only",
      },
      "no value of trainable for these modules",
    ),
    ({"mesh.data": -1, "mesh.fsdp": -1}, "at most one may be -1"),
    ({"compare.variants": "a: bond=none"}, "'bond' .did you mean bound"),
    ({"compare.strategies": "full,kl", "compare.full": False}, "change one of them"),
    ({"compare.budgets": "5%,5.0%"}, "compare.budgets has '5%' and '5.0%'"),
    ({"compare.fresh_pools": True, "pool.data": "a"}, "and pool.data is given"),
    (
      {"select.search.candidates": 3, "select.strategy": "random"},
      "select.search has nothing to compare",
    ),
    (
      {"select.search.candidates": 3, "select.search.groups": "foo"},
      "select.groups names 'foo'",
    ),
    ({"evaluate.tasks": "none.jsonl"}, "none.jsonl: the evaluation file is not there"),
    ({"pool.images": "mine"}, "pool.images='mine' is given and pool.data is not"),
    ({"pool.demo.rows": 40}, "pool.demo.rows=40: broken is 12; of 40 rows"),
  ],
)
def test_settings_that_do_not_go_together_stop_a_run(base, tmp_path, settings, message):
  cfg = small_run.make_config(base, **settings)
  with context.open_run(cfg, str(tmp_path)) as current:
    with pytest.raises(InputError, match=message):
      check_settings(current, "run")


def test_what_a_command_does_not_read_need_not_be_there(base, tmp_path):
  settings = {
    "score.table": "nowhere",
    "select.force_in": "none.txt",
    "evaluate.tasks": "none.jsonl",
  }
  with small_run.open_run(tmp_path, base, **settings) as current:
    for command in ("check", "report", "explain", "export-selection"):
      check_settings(current, command)


@pytest.mark.parametrize(
  "setting", ["tune.epochs=-1", "select.groups=foo", "select.signal=foo"]
)
@pytest.mark.parametrize("command", ["run", "seed", "check", "report"])
def test_nothing_is_begun_with_wrong_settings(tmp_path, capfd, setting, command):
  given = [command, "--config=demo", f"--workdir={tmp_path}"]
  # A base that is not there would be the next fault.
  given += ["--config.model.path=/none", f"--config.{setting}"]
  assert main.run(["mllm-selector", *given]) == 2
  said = capfd.readouterr().err
  assert f"Error: {setting.split('=')[0]}" in said and said.count("Error") == 1
  assert {path.name for path in tmp_path.iterdir()} == {"log.txt", ".lock"}


def test_names_are_those_of_the_score_table_that_is_there(base, scored):
  settings = {"score.model": str(base)}
  # The table holds visual; the config asks for other signals.
  for key, value in (("groups", "visual"), ("signal", "visual"), ("signal", "entropy")):
    given = {**settings, f"select.{key}": value}
    with small_run.open_run(scored, base, **given) as current:
      for command, fails in (
        ("select", value == "entropy"),
        ("seed", False),
        ("run", value == "visual"),
      ):
        if not fails:
          check_settings(current, command)
          continue
        with pytest.raises(InputError, match=f"select.{key} .*'{value}'"):
          check_settings(current, command)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"select.budget": "0.1%"}, "select.budget is 0.1% of 60 eligible rows"),
    ({"seed.rows": "0.1%"}, "seed.rows is 0.1% of 60 eligible rows"),
    ({"select.groups": "source"}, "'source', which has 60 different values in 60"),
    ({"select.leave_out": "nobody"}, "select.leave_out: no row of the pool has the id"),
  ],
)
def test_what_the_pool_cannot_give_stops_a_run_after_its_check(
  base, tmp_path, settings, message
):
  records = [make_record(n, source=f"own {n}") for n in range(60)]
  (tmp_path / "pool.json").write_text(json.dumps(records))
  settings = {"pool.data": str(tmp_path / "pool.json"), **settings}
  work = tmp_path / "work"
  with small_run.open_run(work, base, **settings) as current:
    with pytest.raises(InputError, match=message):
      COMMANDS["run"](current)
  assert (work / "pool.parquet").exists() and not (work / "seed").exists()


def test_one_number_is_a_list_of_one(scored, base):
  settings = {"select.sweep.kl_weights": 0.4, "select.sweep.budgets": 30}
  settings |= {"select.force_in": 5, "compare.seeds": 3}
  with small_run.open_run(scored, base, **settings) as current:
    with pytest.raises(InputError, match="no row of the pool has the id '5'"):
      check_settings(current, "select")
