"""The table of forms that `benchmarks/families.py` prints, in parts."""

import pytest
import transformers

from benchmarks import families
from benchmarks.family_forms import FORMS
from mllm_selector_jax.models.huggingface.model_families import FAMILIES
from mllm_selector_jax.models.huggingface.other_models import OTHERS

NAMES = [form.name for form in FORMS]


def test_names_are_of_one_form_each():
  assert len(set(NAMES)) == len(NAMES)


def test_what_is_said_to_be_missing_is_of_models_that_transformers_knows():
  known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
  assert not set(OTHERS) & set(FAMILIES)
  assert set(OTHERS) <= set(known)


@pytest.mark.slow
def test_a_form_that_runs(tmp_path):
  form = FORMS[NAMES.index("llava-hf/llava-1.5-7b-hf")]
  result = families.try_form(form, tmp_path)
  assert not result.refusal and result.kind == "llava"
  assert len(result.cells) == len(families.STEPS)
  _, losses, difference, loss = result.cells
  before, after = map(float, losses.split())
  assert before != after
  assert float(difference) < 1e-5
  assert 0 < float(loss) < 10


def test_a_form_that_is_refused(tmp_path):
  form = FORMS[NAMES.index("meta-llama/Llama-3.2-11B-Vision-Instruct")]
  result = families.try_form(form, tmp_path)
  assert result.cells == []
  assert result.refusal.startswith("config.json: model_type is 'mllama', whose decoder")
