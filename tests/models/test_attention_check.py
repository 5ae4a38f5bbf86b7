import dataclasses

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import attention, attention_check
from mllm_selector_jax.types import InputError
from tests.models import packed, trees

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


def choose(kernel, batch=BATCH, **changes):
  config = dataclasses.replace(CONFIG, attention=kernel, **changes)
  warnings = []
  chosen = attention_check.choose_kernel(config, PARAMS, batch, warnings.append)
  assert dataclasses.replace(chosen, attention=kernel) == config
  return chosen.attention, warnings


def ignore(**changes):
  """Splash with part of the layout left out, as a broken kernel would."""
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
  # Rows of another length.
  batch = jax.tree.map(lambda x: x[:, :100], BATCH)
  kernel, (warning,) = choose("splash", batch=batch._replace(images=BATCH.images))
  assert kernel == "xla" and "only multiples of 128" in warning


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
  "broken",
  [
    ignore(segments=ones, prefixes=lambda layout: None),
    ignore(prefixes=lambda layout: None),
    ignore(window=lambda layout: 30),
    lambda layout: lambda *arrays: attention.KERNELS["xla"](layout)(*arrays) * np.nan,
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

  # This tower's last layer is not projected, so that one layer runs.
  monkeypatch.setitem(attention.KERNELS, "splash", broken)
  kernel, (warning,) = choose("splash", batch=batch)
  assert kernel == "xla" and "hidden states by" in warning


def test_an_unknown_kernel_is_refused():
  with pytest.raises(InputError, match="'flash' is not one of auto, xla, cudnn"):
    packed.make_config(attention="flash")
