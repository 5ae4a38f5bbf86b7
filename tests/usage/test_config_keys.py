"""The keys, defaults and comments that are read from default.py, against the config."""

import pytest

from mllm_selector_jax.configs import default
from mllm_selector_jax.usage import config_keys, resolved_config
from mllm_selector_jax.usage.config_keys import ConfigKey, read_keys


def test_the_keys_and_defaults_are_those_of_the_config():
  values = dict(resolved_config.list_values(default.get_config()))
  assert {name: key.default for name, key in read_keys().items()} == values


@pytest.mark.parametrize("name", read_keys())
def test_every_key_has_a_sentence(name):
  sentence = read_keys()[name].sentence
  assert sentence.endswith(".") and " " in sentence and "#" not in sentence


def test_a_comment_belongs_to_its_key_alone():
  keys = read_keys()
  assert keys["pool.max_images"].comment.startswith("A row with more images")
  assert keys["prepare.workers"].comment == "processes; 0: one per core"
  assert keys["tune.batch"].comment == keys["align.batch"].comment
  assert (keys["tune.batch"].default, keys["align.batch"].default) == (128, 256)


@pytest.mark.parametrize(
  ("comment", "sentence"),
  [
    ("rows of a file", "Rows of a file."),
    ("What it is: a,\nor b. More of it.", "What it is: a, or b."),
    ("The rule:\n  a   one\n  b   two", "The rule."),
    ("Such as 0.5 or a.txt. Then", "Such as 0.5 or a.txt."),
  ],
)
def test_the_first_sentence_of_a_comment(comment, sentence):
  assert ConfigKey(None, comment).sentence == sentence


def test_the_shipped_configs_are_listed():
  assert {"default", "demo"} <= set(config_keys.list_shipped())
  assert "__init__" not in config_keys.list_shipped()
