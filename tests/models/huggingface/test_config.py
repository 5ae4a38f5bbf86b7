import sys

import pytest

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import InputError
from tests.models import tiny
from tests.models.huggingface import bases


def test_fields_are_read(tmp_path):
  folder = tiny.make_base(
    tmp_path / "x",
    vision_hidden_act="gelu",
    llava_vision_feature_layer=-1,
    tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
  )
  config = huggingface.read_config(folder, dtype="bfloat16", remat="full")
  assert config.vision.activation == "gelu"
  assert (config.feature_layer, config.vision_layers) == (-1, 2)
  assert config.decoder.tied and config.decoder.rope.theta == 5000.0
  assert (config.decoder.heads, config.decoder.kv_heads) == (4, 2)
  assert (config.decoder.head_dim, config.decoder.epsilon) == (8, 1e-5)
  assert (config.image_token, config.patches) == (4, 16)
  assert config.dtype == "bfloat16" and config.remat == "full"
  assert config.image_mean == (0.48145466, 0.4578275, 0.40821073)


@pytest.mark.parametrize("version", [4, 5])
def test_the_wavelength_is_read_in_both_forms(base, tmp_path, version):
  folder = bases.copy(base, tmp_path / "x")

  def change(config):
    text = config["text_config"]
    del text["rope_parameters"], text["rope_theta"]
    if version == 4:
      text["rope_theta"] = 1234.0
    else:
      text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1234.0}

  bases.edit_json(folder / "config.json", change)
  assert huggingface.read_config(folder).decoder.rope.theta == 1234.0


def test_a_sparse_config_is_filled_in(base, tmp_path):
  # As published ones are: what equals transformers' default is left out.
  folder = bases.copy(base, tmp_path / "x")

  def change(config):
    for key in ("hidden_act", "rope_theta", "rope_parameters", "head_dim"):
      del config["text_config"][key]
    for key in ("hidden_act", "layer_norm_eps", "num_channels"):
      del config["vision_config"][key]
    del config["projector_hidden_act"], config["vision_feature_select_strategy"]

  bases.edit_json(folder / "config.json", change)
  assert huggingface.read_config(folder) == huggingface.read_config(base)


@pytest.mark.parametrize("name", ["vision_feature_layer", "vision_feature_layers"])
def test_vipllava_s_layers_are_read_under_both_names(tmp_path, name):
  # Transformers 5 has the first name, version 4 the second; an export has both.
  folder = tiny.make_base(tmp_path / "x", family="vipllava")
  wanted = huggingface.read_config(folder)
  assert wanted.feature_layer == (-1, 1) and wanted.projected_width == 2 * 32

  def change(config):
    kept = config[name]
    del config["vision_feature_layer"], config["vision_feature_layers"]
    config[name] = kept

  bases.edit_json(folder / "config.json", change)
  assert huggingface.read_config(folder) == wanted


def test_everything_that_cannot_be_run_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")

  def change(config):
    config["multimodal_projector_bias"] = False
    config["text_config"]["hidden_act"] = "gelu"
    config["text_config"]["mlp_bias"] = True
    config["vision_config"]["num_channels"] = 4

  bases.edit_json(folder / "config.json", change)
  with pytest.raises(InputError) as error:
    huggingface.read_config(folder)
  for found in (
    "projector_bias is False",
    "'gelu'",
    "mlp_bias is True",
    "num_channels is 4",
  ):
    assert found in str(error.value)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"model_type": "git"}, "'git', a vision-language family that"),
    (
      {"text_config": {"model_type": "falcon"}},
      "'falcon'; supported are llama, mistral, qwen2",
    ),
    ({"text_config": {"model_type": "gemma"}}, "one checkpoint would be two models"),
    ({"text_config": {"model_type": "gemma2"}}, "which caps logits"),
    ({"text_config": {"model_type": "cohere2"}}, "the same norm, side by side"),
    (
      {"vision_config": {"model_type": "siglip2_vision_model"}},
      "'siglip2_vision_model', the NaFlex form of SigLIP2",
    ),
    (
      {"vision_config": {"model_type": "vit"}},
      "supported are clip_vision_model, siglip_vision_model",
    ),
    ({"image_seq_length": "many"}, "not a valid configuration"),
    ({"model_type": None}, "model_type is None"),
    ({"text_config": {"model_type": "no-such"}}, "not a valid configuration"),
    ({"text_config": {"hidden_size": "many"}}, "not a valid configuration"),
    ({"image_token_index": 320}, "320 lies outside the vocabulary"),
    ({"vision_feature_layer": -7}, "vision_feature_layer is -7"),
    ({"vision_feature_layer": [-2, -5]}, r"vision_feature_layer is \(-2, -5\)"),
    ({"projector_hidden_act": "relu"}, "'relu' is not one of"),
  ],
)
def test_wrong_values_are_named(base, tmp_path, change, message):
  folder = bases.copy(base, tmp_path / "x")
  bases.edit_json(folder / "config.json", lambda config: config.update(change))
  with pytest.raises(InputError, match=message):
    huggingface.read_config(folder)


def test_a_missing_config_is_named(tmp_path):
  with pytest.raises(InputError, match=r"config\.json is missing"):
    huggingface.read_config(tmp_path)


def test_remote_code_is_never_imported(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  code = "import sys\nsys.modules['remote_code_ran'] = sys\n"
  (folder / "remote.py").write_text(code)
  references = {
    "config.json": {"AutoConfig": "remote.Config"},
    "tokenizer_config.json": {"AutoTokenizer": ["remote.Tokenizer", None]},
    "preprocessor_config.json": {"AutoImageProcessor": "remote.Processor"},
  }
  for name, reference in references.items():
    bases.edit_json(folder / name, lambda value, r=reference: value.update(auto_map=r))
  config = huggingface.read_config(folder)
  huggingface.read_processor(folder)
  out = tmp_path / "out"
  params = huggingface.read_params(folder, config)
  huggingface.write_model(out, config, params, folder)
  assert "remote_code_ran" not in sys.modules
  assert not any("auto_map" in path.read_text() for path in out.glob("*.json"))
