"""Models made of parts, and LLaVA's own checkpoints, against torch."""

import json

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mllm_selector_jax import main
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import InputError
from tests.models.huggingface import bases, loose
from tests.models.huggingface.test_parity import assert_agree, load_torch

torch.set_num_threads(1)
TABLE = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
  """A Llama without pad, a Qwen2 with, a CLIP tower, a whole SigLIP."""
  folder = tmp_path_factory.mktemp("parts")
  loose.save_decoder(folder / "llama")
  loose.save_decoder(folder / "qwen2", "qwen2", pad=True, vocab_size=320)
  loose.save_tower(folder / "clip")
  loose.save_tower(folder / "siglip", "siglip", whole=True)
  return folder


def test_a_decoder_and_a_tower_become_one(parts, tmp_path):
  out = tmp_path / "out"
  config = huggingface.assemble(out, parts / "llama", parts / "clip")
  assert (config.decoder.vocab, config.image_token, config.patches) == (320, 300, 16)
  assert json.loads((out / "config.json").read_text())["image_seq_length"] == 16
  model = load_torch(out)
  assert_agree(model, config, huggingface.read_params(out, config))
  tokenizer, options = huggingface.read_processor(out)
  assert tokenizer.pad_token == "<pad>" and tokenizer.pad_token_id == 301
  assert model.config.text_config.pad_token_id == 301
  assert options.pad and options.background == (122, 114, 102)
  # Every weight is where it was, the two new words are the mean of the old.
  ours, theirs = bases.read_tensors(out), load_file(parts / "llama/model.safetensors")
  for name, value in theirs.items():
    found = ours["language_model." + name]
    np.testing.assert_array_equal(found[: len(value)], value)
  mean = theirs["model.embed_tokens.weight"].double().mean(0)
  np.testing.assert_allclose(ours[TABLE][300:], mean.expand(20, 32), atol=1e-7)
  tower = load_file(parts / "clip/model.safetensors")
  assert len(ours) == len(theirs) + len(tower) + 4


def test_room_in_the_vocabulary_is_used(parts, tmp_path):
  out = tmp_path / "out"
  config = huggingface.assemble(
    out, parts / "qwen2", parts / "siglip", feature_layer=-1
  )
  assert (config.decoder.vocab, config.image_token, config.select) == (320, 300, "full")
  assert huggingface.read_processor(out)[0].pad_token_id == 3
  assert_agree(load_torch(out), config, huggingface.read_params(out, config))
  assert not any(
    "head." in name and "vision" in name for name in bases.read_tensors(out)
  )


def test_a_qwen3_and_a_dinov2_become_one(tmp_path):
  loose.save_decoder(tmp_path / "qwen3", "qwen3", head_dim=12, pad=True)
  tower = loose.save_tower(tmp_path / "dinov2", "dinov2")
  out = tmp_path / "out"
  config = huggingface.assemble(
    out, tmp_path / "qwen3", tmp_path / "dinov2", feature_layer=-1
  )
  assert config.decoder.qk_norm and config.vision.layer_scale
  assert config.patches == 16  # the class token is left out
  options = huggingface.read_processor(out)[1]
  assert (options.size, options.pad, options.mean) == (32, True, (0.5, 0.5, 0.5))
  params = huggingface.read_params(out, config)
  model = load_torch(out)
  assert_agree(model, config, params)
  theirs, ours = tower.state_dict(), model.model.vision_tower.state_dict()
  assert theirs.keys() == ours.keys()
  for key, value in theirs.items():
    torch.testing.assert_close(ours[key], value, rtol=0, atol=0)


def test_a_gemma3_and_a_siglip_become_one(parts, tmp_path):
  fields = {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
  loose.save_decoder(tmp_path / "gemma", "gemma3_text", pad=True, **fields)
  out = tmp_path / "out"
  config = huggingface.assemble(
    out, tmp_path / "gemma", parts / "siglip", feature_layer=-1
  )
  assert config.decoder.tied and config.decoder.window == 6
  assert_agree(load_torch(out), config, huggingface.read_params(out, config))


def test_a_given_projector_is_taken(parts, tmp_path):
  huggingface.assemble(tmp_path / "a", parts / "llama", parts / "clip", seed=1)
  for seed, projector in enumerate((tmp_path / "a", tmp_path / "a/model.safetensors")):
    out = tmp_path / f"b{seed}"
    huggingface.assemble(out, parts / "llama", parts / "clip", projector)
    assert (out / "model.safetensors").read_bytes() == (
      tmp_path / "a/model.safetensors"
    ).read_bytes()
  huggingface.assemble(tmp_path / "c", parts / "llama", parts / "clip", seed=2)
  first, second = (bases.read_tensors(tmp_path / name) for name in "ac")
  differs = {name for name in first if not np.array_equal(first[name], second[name])}
  assert differs == {f"multi_modal_projector.linear_{n}.weight" for n in (1, 2)}


@pytest.mark.parametrize("own", [False, True])
def test_llavas_own_checkpoint(parts, tmp_path, own):
  folder = tmp_path / "llava"
  decoder, weights = loose.save_original(folder, parts / "clip", own=own)
  config = huggingface.read_config(folder)
  params = huggingface.read_params(folder, config)
  # Its parts, put together by hand in torch.
  huggingface.assemble(tmp_path / "hf", folder)
  model = load_torch(tmp_path / "hf")
  table = model.get_input_embeddings().weight.detach()
  torch.testing.assert_close(
    table[:300], decoder.get_input_embeddings().weight.detach(), rtol=0, atol=0
  )
  for n, layer in enumerate(("linear_1", "linear_2")):
    found = getattr(model.model.multi_modal_projector, layer)
    wanted = weights[f"model.mm_projector.{2 * n}.weight"]
    torch.testing.assert_close(found.weight.detach(), wanted, rtol=0, atol=0)
  tower = load_file(parts / "clip/model.safetensors")
  name = "embeddings.position_embedding.weight"
  wanted = next(value for key, value in tower.items() if key.endswith(name))
  found = model.model.vision_tower.state_dict()
  found = next(value for key, value in found.items() if key.endswith(name))
  torch.testing.assert_close(found, wanted + 0.05 * own, rtol=0, atol=0)
  assert_agree(model, config, params)
  again = huggingface.read_params(tmp_path / "hf", config)
  jax.tree.map(np.testing.assert_array_equal, params, again)
  assert huggingface.read_processor(folder)[1].pad


TILED = {
  "image_aspect_ratio": "anyres",
  "mm_patch_merge_type": "spatial_unpad",
  "image_grid_pinpoints": [[32, 64], [64, 64], [96, 32]],
}


@pytest.mark.parametrize(
  "limit, stated, pinpoints",
  [
    (False, TILED["image_grid_pinpoints"], ((64, 32), (64, 64), (32, 96))),
    (True, TILED["image_grid_pinpoints"], ((64, 32), (64, 64), (32, 96))),
    (True, "(1x1),...,(2x2)", ((32, 32), (64, 32), (32, 64), (64, 64))),
  ],
)
def test_llavas_own_checkpoint_with_tiles(tmp_path, limit, stated, pinpoints):
  # With a limit it is LLaVA-OneVision, whose tower has lost its last layer.
  tower = tmp_path / "tower"
  loose.save_tower(tower, "siglip" if limit else "clip")
  _, weights = loose.save_original(tmp_path / "x", tower, own=True)
  newline = torch.arange(32.0) / 9
  if limit:
    weights = {key: value for key, value in weights.items() if ".layers.1." not in key}
  kept = {**weights, "model.image_newline": newline}
  if limit:
    kept |= {
      key: value
      for key, value in loose.load_file(tmp_path / "x/model.safetensors").items()
      if key.startswith("model.layers.1.")
    }
  loose.save_file(kept, tmp_path / "x/model.safetensors", metadata={"format": "pt"})
  change = {**TILED, "image_grid_pinpoints": stated}
  change |= {"image_aspect_ratio": "anyres_max_4"} if limit else {}
  bases.edit_json(tmp_path / "x/config.json", lambda config: config.update(change))
  config = huggingface.read_config(tmp_path / "x")
  assert config.newline and config.vision_layers == 1
  assert config.vision.layers == (1 if limit else 2)
  params = huggingface.read_params(tmp_path / "x", config)
  np.testing.assert_array_equal(params["projector"]["newline"], newline)
  options = huggingface.read_processor(tmp_path / "x")[1]
  assert options.form == "anyres" and options.max_features == (4 if limit else None)
  assert options.pinpoints == pinpoints
  huggingface.assemble(tmp_path / "hf", tmp_path / "x")
  assert huggingface.read_config(tmp_path / "hf") == config
  assert huggingface.read_processor(tmp_path / "hf")[1] == options
  model = load_torch(tmp_path / "hf")
  kind = "LlavaOnevision" if limit else "LlavaNext"
  assert type(model).__name__ == f"{kind}ForConditionalGeneration"
  torch.testing.assert_close(model.model.image_newline.detach(), newline)
  again = huggingface.read_params(tmp_path / "hf", config)
  jax.tree.map(np.testing.assert_array_equal, params, again)


def test_pickled_weights_are_converted_by_the_command_that_is_named(
  parts, tmp_path, capsys
):
  from mllm_selector_jax.models.huggingface import convert

  folder, plain = tmp_path / "pickled", tmp_path / "plain"
  loose.save_original(folder, parts / "clip", pickled=True)
  loose.save_original(plain, parts / "clip")
  config = huggingface.read_config(plain)
  with pytest.raises(InputError) as error:
    huggingface.read_params(folder, config)
  command = str(error.value).split("Convert them: ")[1]
  assert command == f"python -m {convert.__name__} {folder}"
  assert convert.main(command.split()[3:]) == 0
  assert "model.safetensors.index.json" in capsys.readouterr().out
  jax.tree.map(
    np.testing.assert_array_equal,
    huggingface.read_params(folder, config),
    huggingface.read_params(plain, config),
  )


def test_a_pickled_projector_is_refused_then_converted(parts, tmp_path):
  from mllm_selector_jax.models.huggingface import convert

  path = tmp_path / "mm_projector.bin"
  weights = {
    f"model.mm_projector.{n}.{kind}": torch.randn((32, 32)[: 1 + (kind == "weight")])
    for n in (0, 2)
    for kind in ("weight", "bias")
  }
  torch.save(weights, path)
  arguments = (parts / "llama", parts / "clip", path)
  with pytest.raises(InputError, match="never read") as error:
    huggingface.assemble(tmp_path / "out", *arguments)
  assert f"{convert.__name__} {path}" in str(error.value)
  (done,) = convert.convert(path)
  huggingface.assemble(tmp_path / "out", *arguments[:2], done)
  found = bases.read_tensors(tmp_path / "out")["multi_modal_projector.linear_2.weight"]
  np.testing.assert_array_equal(found, weights["model.mm_projector.2.weight"])


class Bomb:
  def __reduce__(self):
    return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(
  "content", [{"weight": Bomb()}, {"weight": "text"}, [1, 2], None]
)
def test_the_converter_runs_no_code(tmp_path, content, capsys):
  from mllm_selector_jax.models.huggingface import convert

  path = tmp_path / "pytorch_model.bin"
  if content is None:
    path.write_bytes(b"not a pickle")
  else:
    torch.save(content, path)
  assert convert.main([str(tmp_path)]) == 2
  assert str(path) in capsys.readouterr().err
  assert not list(tmp_path.glob("*.safetensors"))


def test_the_converter_names_missing_files(tmp_path, capsys):
  from mllm_selector_jax.models.huggingface import convert

  assert convert.main([str(tmp_path)]) == 2
  torch.save({}, tmp_path / "pytorch_model-1.bin")
  index = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
  (tmp_path / convert.INDEX).write_text(json.dumps(index))
  assert convert.main([str(tmp_path)]) == 2
  error = capsys.readouterr().err
  assert "no *.bin file" in error and "missing files: pytorch_model-2.bin" in error


@pytest.mark.parametrize(
  "change, message",
  [
    ({"mm_projector_type": "linear"}, "'linear', only 'mlp2x_gelu'"),
    ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
    ({"image_aspect_ratio": "square"}, "'square', only 'pad', 'anyres' or"),
    ({"image_aspect_ratio": "anyres"}, "'flat', only 'spatial_unpad'"),
    ({"image_aspect_ratio": "anyres"}, "image_grid_pinpoints is 'None', only a list"),
    ({"model_type": "llava_mpt"}, "'llava_mpt'; of LLaVA's own"),
    ({"mm_vision_tower": "/no/where"}, "There is no directory /no/where"),
    ({"mm_vision_select_layer": -9}, "vision_feature_layer is -9"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
  ],
)
def test_what_llava_has_and_we_cannot_is_named(parts, tmp_path, change, message):
  loose.save_original(tmp_path / "x", parts / "clip")
  bases.edit_json(tmp_path / "x/config.json", lambda config: config.update(change))
  with pytest.raises(InputError, match=message):
    huggingface.read_config(tmp_path / "x")


def run(*arguments):
  return main.run(["mllm-selector", *map(str, arguments)])


def test_the_command(parts, tmp_path, capsys):
  out = tmp_path / "out"
  flags = [f"--decoder={parts / 'llama'}", f"--vision={parts / 'clip'}"]
  assert run("assemble", *flags, f"--out={out}") == 0
  said = capsys.readouterr().out
  assert "image token 300" in said and "projector is random" in said
  huggingface.read_params(out, huggingface.read_config(out))
  assert run("assemble", *flags, f"--out={out}") == 2
  assert "the folder is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments, message",
  [
    ((), "assemble needs --decoder"),
    (("--surprise=1",), "Unknown command line flag"),
    (("--decoder={llama}", "--vision=/no/where", "--out={out}"), "no directory /no"),
    (("--decoder={clip}", "--vision={clip}", "--out={out}"), "supported are llama"),
    (("--decoder={llama}", "--vision={llama}", "--out={out}"), "supported are clip"),
    (("--decoder={llama}", "--out={out}"), "mllm-selector assemble"),
  ],
)
def test_wrong_parts_are_named(parts, tmp_path, capsys, arguments, message):
  from mllm_selector_jax.stages import assemble

  names = {"llama": parts / "llama", "clip": parts / "clip", "out": tmp_path / "out"}
  for name in ("decoder", "vision", "projector", "out"):
    assemble.flags.FLAGS[name].unparse()
  assert run("assemble", *(a.format(**names) for a in arguments)) == 2
  error = capsys.readouterr().err
  assert message in error and "Traceback" not in error
  assert list(tmp_path.iterdir()) == []
