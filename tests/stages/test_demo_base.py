"""The script that makes the tiny base, at a small size."""

from mllm_selector_jax.demo import make_base
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.stages import assemble
from tests.small_run import read_bytes


def test_the_base_is_made_twice_with_the_same_bytes(monkeypatch, tmp_path):
  for name, value in (
    ("CAPTIONS", 96),
    ("QUESTIONS", 64),
    ("EPOCHS", 2),
    ("LAST_EPOCHS", 1),
  ):
    monkeypatch.setattr(make_base, name, value)
  for name in ("one", "two"):
    make_base.make_base(tmp_path / name, Console(tmp_path / f"{name}.txt"))
  assert read_bytes(tmp_path / "one") == read_bytes(tmp_path / "two")
  config = huggingface.read_config(tmp_path / "one")
  assert huggingface.read_params(tmp_path / "one", config).keys() == {
    "vision",
    "projector",
    "decoder",
  }
  assert "questions: 1 steps" in (tmp_path / "one.txt").read_text()


def test_its_flag_does_not_meet_another_command_s():
  module = assemble.flags.FLAGS.find_module_defining_flag("out")
  assert module == assemble.__name__
