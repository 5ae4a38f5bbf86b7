"""What fuzzing of tokenizers has found, each as a test of its whole kind."""

import json

import pytest

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface.tokenizer_files import load_tokenizer
from mllm_selector_jax.types import InputError
from tests import tokenizers_on_the_spot
from tests.models import tiny
from tests.models.huggingface import bases


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


def test_a_panic_while_a_tokenizer_is_loaded(tmp_path):
  tiny.make_tokenizer().save_pretrained(tmp_path)
  bases.edit_json(
    tmp_path / "tokenizer.json",
    lambda value: value["model"].update(continuing_subword_prefix="#" * 14),
  )
  with pytest.raises(InputError, match="the tokenizer cannot be read: range end"):
    load_tokenizer(tmp_path)


@pytest.mark.parametrize("longest", [{"a": 1}, [3], "many"])
def test_a_tokenizer_whose_longest_text_is_no_number(base, tmp_path, longest):
  folder = bases.copy(base, tmp_path / "base")
  change = {"model_max_length": longest}
  bases.edit_json(folder / "tokenizer_config.json", lambda value: value.update(change))
  with pytest.raises(InputError, match=r"tokenizer_config.json: model_max_length"):
    huggingface.read_processor(folder)


def test_a_token_for_unknown_ones_that_is_itself_unknown(tmp_path):
  tokenizers_on_the_spot.write_sentencepiece(tmp_path)
  change = {"unk_token": "", "bos_token": "<nowhere>"}
  bases.edit_json(
    tmp_path / "tokenizer_config.json", lambda value: value.update(change)
  )
  with pytest.raises(InputError):
    load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["tokenizer.json", "vocab.json", "added"])
@pytest.mark.parametrize("number", [1 << 24, 4294967290])
def test_the_id_of_a_token_that_no_model_has(tmp_path, kind, number):
  # To write the vocabulary down, the library lists all ids in between: 17 GB.
  path = tmp_path / "tokenizer.json"
  tiny.make_tokenizer().save_pretrained(tmp_path)
  form = json.loads(path.read_text())
  if kind == "added":
    form["added_tokens"].append({**form["added_tokens"][-1], "content": "<far>"})
    form["added_tokens"][-1]["id"] = number
  else:
    form["model"]["vocab"]["far"] = number
  path.write_text(json.dumps(form))
  if kind == "vocab.json":
    path.unlink()
    (tmp_path / kind).write_text(json.dumps(form["model"]["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in
              form["model"].get("merges", [])]  # fmt: skip
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    change = {"tokenizer_class": "GPT2Tokenizer"}
    bases.edit_json(
      tmp_path / "tokenizer_config.json", lambda value: value.update(change)
    )
  if kind == "added":  # the library gives it the next free id
    assert max(load_tokenizer(tmp_path).get_vocab().values()) < 10_000
    return
  with pytest.raises(InputError, match=f"'far' the id {number:,}; at most 16,777,215"):
    load_tokenizer(tmp_path)
