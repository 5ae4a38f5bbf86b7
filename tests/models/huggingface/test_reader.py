import json
import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import huggingface, mllm
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.types import InputError
from tests.models import packed, tiny
from tests.models.huggingface import bases

NORM = "language_model.model.norm.weight"
GATE = "language_model.model.layers.1.mlp.gate_proj.weight"
HEAD = "language_model.lm_head.weight"


def read(folder):
  return huggingface.read_params(folder, huggingface.read_config(folder))


def assert_equal(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def refused(folder):
  with pytest.raises(InputError) as error:
    read(folder)
  return str(error.value)


def test_reads_what_init_made(base):
  config = huggingface.read_config(base)
  assert_equal(read(base), mllm.init(config, 0))


def test_every_tensor_lands_where_it_belongs(base):
  params, tensors = read(base)["decoder"], bases.read_tensors(base)
  np.testing.assert_array_equal(params["layers"]["gate"]["kernel"][1].T, tensors[GATE])
  np.testing.assert_array_equal(params["head"].T, tensors[HEAD])
  assert sum(x.size for x in jax.tree.leaves(read(base))) == sum(
    x.size for x in tensors.values()
  )


def test_shards_are_read_as_one_file(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  bases.shard(folder, 3)
  assert len(list(folder.glob("*.safetensors"))) == 3
  assert_equal(read(folder), read(base))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_float_types_become_float32(base, tmp_path, dtype):
  folder = bases.copy(base, tmp_path / "x")

  def cast(tensors):
    tensors.update({name: x.astype(dtype) for name, x in tensors.items()})

  bases.edit_tensors(folder, cast)
  found = read(folder)
  assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}
  assert_equal(
    found, jax.tree.map(lambda x: np.asarray(x, dtype).astype(np.float32), read(base))
  )


def to_v5(name):
  name = name.replace("language_model.model.", "model.language_model.")
  name = name.replace("language_model.lm_head.", "lm_head.")
  name = name.replace("vision_tower.vision_model.", "model.vision_tower.")
  return name.replace("multi_modal_projector.", "model.multi_modal_projector.")


def test_the_names_of_transformers_5_are_read_too(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")

  def rename(tensors):
    for name in list(tensors):
      tensors[to_v5(name)] = tensors.pop(name)

  bases.edit_tensors(folder, rename)
  assert "model.vision_tower.encoder.layers.0.mlp.fc1.bias" in bases.read_tensors(
    folder
  )
  assert_equal(read(folder), read(base))


def test_canonical_names_stay():
  for leaf in mapping.list_leaves(packed.CONFIG):
    for name in leaf.names:
      assert tensor_names.canonical_name(name) == name
      assert tensor_names.canonical_name(to_v5(name)) == name


def test_layouts_go_there_and_back():
  config = packed.CONFIG
  params = packed.random_params(config)
  leaves = mapping.list_leaves(config)
  for leaf, array in zip(leaves, jax.tree.leaves(params), strict=True):
    one = np.asarray(array)[0] if leaf.stacked else np.asarray(array)
    assert leaf.to_theirs(one).shape == leaf.shape
    np.testing.assert_array_equal(leaf.to_ours(leaf.to_theirs(one)), one)


def test_old_buffers_are_passed_over(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  buffers = {
    "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, "f4"),
    "vision_tower.vision_model.embeddings.position_ids": np.arange(17)[None],
  }
  bases.edit_tensors(folder, lambda tensors: tensors.update(buffers))
  assert_equal(read(folder), read(base))


def test_shardings_are_followed(base):
  mesh = sharding.make_mesh(2, 2, 2)
  config = huggingface.read_config(base)
  abstract = mllm.abstract(config)
  layout = sharding.parameter_shardings(abstract, logical_axes(abstract), mesh)
  params = huggingface.read_params(base, config, layout)
  jax.tree.map(lambda x, wanted: x.sharding == wanted or pytest.fail(), params, layout)
  assert not params["decoder"]["head"].sharding.is_fully_replicated
  assert_equal(params, read(base))


def test_every_wrong_tensor_is_named_at_once(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")

  def spoil(tensors):
    del tensors[NORM]
    tensors["surprise.weight"] = np.zeros(3, "f4")
    tensors[GATE] = tensors[GATE].T.copy()
    tensors["multi_modal_projector.linear_2.bias"] = np.zeros(32, "i4")

  bases.edit_tensors(folder, spoil)
  message = refused(folder)
  for line in (
    "4 problems",
    f"missing: {NORM}, shape [32]",
    "unexpected: surprise.weight",
    f"misshapen: {GATE}, shape [32, 48], wanted [48, 32]",
    "wrong type: multi_modal_projector.linear_2.bias is I32",
  ):
    assert line in message
  assert message.count("\n") == 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(base, tmp_path, value):
  folder = bases.copy(base, tmp_path / "x")

  def spoil(tensors):
    tensors[HEAD][5, 3:5] = value

  bases.edit_tensors(folder, spoil)
  assert f"{HEAD} has 2 of 10240 values that are not finite" in refused(folder)


def test_one_tensor_under_two_names_is_refused(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  bases.edit_tensors(folder, lambda x: x.update({to_v5(NORM): x[NORM]}))
  assert "twice there" in refused(folder)


@pytest.mark.parametrize("equal", [True, False])
def test_a_saved_head_of_a_tied_model_must_be_the_embedding(tmp_path, equal):
  folder = tiny.make_base(tmp_path / "x", tie_word_embeddings=True)
  assert HEAD not in bases.read_tensors(folder)
  wanted = read(folder)

  def add(tensors):
    table = tensors["language_model.model.embed_tokens.weight"]
    tensors[HEAD] = table.copy() if equal else table + 1

  bases.edit_tensors(folder, add)
  if equal:
    assert_equal(read(folder), wanted)
  else:
    assert "contradicts" in refused(folder)


class Bomb:
  def __reduce__(self):
    return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_never_read(base, tmp_path, name):
  folder = bases.copy(base, tmp_path / "x")
  (folder / "model.safetensors").unlink()
  (folder / name).write_bytes(pickle.dumps(Bomb()))
  message = refused(folder)
  assert name in message and "never read" in message
  assert f"mllm_selector_jax.models.huggingface.convert {folder}" in message


def test_no_weights_at_all(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  (folder / "model.safetensors").unlink()
  assert "has no weights" in refused(folder)


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"\xff" * 8,
    b"\xff" * 100,
    (20).to_bytes(8, "little") + b'{"a": not json}     ',
    b"PK\x03\x04" + b"\0" * 60,
  ],
)
def test_a_bad_header_is_named(base, tmp_path, content):
  folder = bases.copy(base, tmp_path / "x")
  (folder / "model.safetensors").write_bytes(content)
  assert "model.safetensors is not a whole safetensors file" in refused(folder)


def test_a_truncated_file_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "x")
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-4])
  assert "not a whole safetensors file" in refused(folder)


@pytest.mark.parametrize(
  "name",
  ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 3, "a\\b"],
)
def test_an_index_may_not_lead_out(base, tmp_path, name):
  folder = bases.copy(base, tmp_path / "x")
  where = bases.shard(folder, 2)
  where[NORM] = name
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": where}))
  message = refused(folder)
  assert NORM in message and "file beside the index" in message


@pytest.mark.parametrize(
  "content, message",
  [
    ("{", "cannot be read as JSON"),
    ("[]", "not a JSON object"),
    ("{}", "no weight_map"),
    ('{"weight_map": {"a": "gone.safetensors"}}', "missing: gone.safetensors"),
  ],
)
def test_a_bad_index_is_named(base, tmp_path, content, message):
  folder = bases.copy(base, tmp_path / "x")
  (folder / "model.safetensors").unlink()
  (folder / "model.safetensors.index.json").write_text(content)
  assert message in refused(folder)
