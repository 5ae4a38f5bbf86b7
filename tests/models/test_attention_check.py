import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import attention, attention_check
from mllm_selector_jax.types import InputError
from tests.models import native_inputs, packed, trees

CONFIG = packed.make_config(decoder_layers=1, decoder_head_dim=8)
PARAMS = packed.random_params(CONFIG)


def make_batch(rows):
  layout = trees.lay_out(rows, 128)
  tokens = np.random.default_rng(0).integers(5, 40, layout.segments.shape)
  predict = np.tile(np.arange(0, 60, 7, dtype=np.int32), (len(rows), 1))
  batch = packed.pack(CONFIG, [[] for _ in rows], 128)
  return batch._replace(
    tokens=tokens.astype(np.int32),
    segments=layout.segments,
    positions=layout.positions,
    prefixes=layout.prefixes,
    predict=predict,
    weights=np.ones(predict.shape, np.float32),
  )


BATCH = make_batch([[(60, [])], [(20, [30, 10]), (9, [])]])


def choose(kernel, batch=BATCH, base=CONFIG, params=PARAMS, **changes):
  config = dataclasses.replace(base, attention=kernel, **changes)
  warnings = []
  chosen = attention_check.choose_kernel(config, params, batch, warnings.append)
  assert dataclasses.replace(chosen, attention=kernel) == config
  return chosen.attention, warnings


def ignore(**changes):
  """A kernel that leaves out part of the layout."""
  return lambda layout: attention.KERNELS["xla"](
    layout and layout._replace(**{name: fn(layout) for name, fn in changes.items()})
  )


def ones(layout):
  return layout.segments * 0 + 1


def test_auto_is_xla_on_cpus_and_runs_nothing():
  assert choose("auto", batch=None) == ("xla", [])
  assert choose("xla", batch=None) == ("xla", [])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_kernel_that_agrees_is_used(dtype):
  assert choose("splash", dtype=dtype) == ("splash", [])


def test_the_check_runs_over_a_mesh():
  with sharding.use(sharding.make_mesh(2, 1, 4)) as mesh:
    assert choose("splash", batch=sharding.put_rows(BATCH, mesh)) == ("splash", [])


def test_what_cannot_be_run_falls_back():
  # No GPU here: jax itself refuses.
  kernel, (warning,) = choose("cudnn", dtype="bfloat16")
  assert kernel == "xla"
  assert "'cudnn' cannot be run here, using 'xla': cuDNN is not detected" in warning


@pytest.mark.parametrize(
  "broken, dtype",
  [
    (ignore(segments=ones, prefixes=lambda layout: None), "float32"),
    (ignore(prefixes=lambda layout: None), "bfloat16"),
    (ignore(window=lambda layout: 30), "bfloat16"),
    (lambda layout: lambda *arrays: arrays[0] * np.nan, "float32"),
  ],
  ids=["segments", "prefixes", "window", "nan"],
)
def test_a_wrong_kernel_is_not_used(monkeypatch, broken, dtype):
  monkeypatch.setitem(attention.KERNELS, "splash", broken)
  kernel, (warning,) = choose("splash", dtype=dtype)
  assert kernel == "xla"
  assert "'splash' differs from 'xla' on the first batch" in warning


def test_a_kernel_that_is_wrong_for_the_vision_tower_alone_is_not_used(monkeypatch):
  rng = np.random.default_rng(1)
  batch = BATCH._replace(
    images=rng.integers(0, 256, BATCH.images.shape, dtype=np.uint8),
    patches=np.tile(np.where(np.arange(128) < 4, np.arange(128), -1), (2, 1)),
  )
  xla = attention.KERNELS["xla"]

  def broken(layout):
    attend = xla(layout)
    return attend if layout else lambda *arrays: attend(*arrays) * 2

  monkeypatch.setitem(attention.KERNELS, "splash", broken)
  kernel, (warning,) = choose("splash", batch=batch)
  assert kernel == "xla" and "hidden states by" in warning


NATIVE_PARAMS = packed.random_params(packed.NATIVE)


def make_native_batch():
  """Two shards of a row; the second holds a smaller image, and much padding."""
  rng = np.random.default_rng(2)

  def draw(*parts):
    return native_inputs.draw_sample(packed.NATIVE, rng, parts)

  rows = [[draw(3, (3, 5), 7), draw(2, (2, 2), 5)], [draw(4, (1, 3), 6)]]
  return native_inputs.pack_rows(packed.NATIVE, rows, 128)


def choose_native(batch, **changes):
  return choose("splash", batch, packed.NATIVE, NATIVE_PARAMS, **changes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_kernel_that_agrees_in_a_native_tower_is_used(dtype):
  assert choose_native(make_native_batch(), dtype=dtype) == ("splash", [])


@pytest.mark.parametrize("changed", ["images", "windows"])
def test_a_kernel_that_is_wrong_in_a_native_tower_is_not_used(monkeypatch, changed):
  """In bfloat16, where hidden states alone would pass for rounded ones."""
  right = attention.KERNELS["splash"]

  def broken(layout):
    if layout.causal or (layout.longest is None) != (changed == "images"):
      return right(layout)
    return right(layout._replace(segments=jnp.minimum(layout.segments, 1)))

  monkeypatch.setitem(attention.KERNELS, "splash", broken)
  kernel, (warning,) = choose_native(make_native_batch(), dtype="bfloat16")
  assert kernel == "xla" and f"one attention in {changed} by" in warning


def test_a_kernel_that_fails_in_a_native_tower_falls_back(monkeypatch):
  right = attention.KERNELS["splash"]

  def broken(layout):
    if not layout.causal:
      raise ValueError("no such heads")
    return right(layout)

  monkeypatch.setitem(attention.KERNELS, "splash", broken)
  kernel, (warning,) = choose_native(make_native_batch())
  assert kernel == "xla"
  assert "'splash' cannot be run here, using 'xla': no such heads" in warning


def test_a_native_tower_is_checked_without_images(monkeypatch):
  batch = make_native_batch()
  batch = batch._replace(
    places=batch.places * 0, patches=np.full_like(batch.patches, -1)
  )
  assert choose_native(batch) == ("splash", [])
  right = attention.KERNELS["splash"]
  monkeypatch.setitem(
    attention.KERNELS,
    "splash",
    lambda layout: right(layout._replace(causal=True, longest=None)),
  )
  kernel, (warning,) = choose_native(batch)
  assert kernel == "xla" and "one attention in images by" in warning


@pytest.mark.parametrize("crowded", [0, 1, 2, 3])
def test_shards_of_several_rows_are_checked(monkeypatch, crowded):
  """Positions count through a shard's rows; those of the checked row are compared."""
  rows = [[(60, [])]] * 4
  rows[crowded] = [(20, [30, 10]), (9, [])]
  batch = make_batch(rows)
  predict = np.arange(0, 2 * 128, 7, dtype=np.int32)
  real = batch.segments.reshape(2, -1)[:, predict] > 0
  batch = batch._replace(
    images=batch.images[:2],
    predict=np.tile(predict, (2, 1)),
    weights=real.astype(np.float32),
  )
  assert choose("splash", batch=batch) == ("splash", [])
  # Hidden states are compared: a tower that is wrong shows in them, too.
  monkeypatch.setitem(
    attention.KERNELS, "splash", ignore(segments=ones, prefixes=lambda layout: None)
  )
  config = dataclasses.replace(CONFIG, attention="splash")
  found, wanted = (
    attention_check.run_sample(
      dataclasses.replace(config, attention=kernel), PARAMS, batch
    )["hidden states"]
    for kernel in ("splash", "xla")
  )
  assert (found != wanted).any() and np.isfinite(found).all()


def test_an_unknown_kernel_is_refused():
  with pytest.raises(InputError, match="'flash' is not one of auto, xla, cudnn"):
    packed.make_config(attention="flash")
