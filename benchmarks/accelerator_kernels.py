"""Attention by every kernel, against float32 over all pairs: the command `kernels`.

A case is a layout (who sees whom, `LAYOUTS`). In it each kernel computes the same drawn
vectors in each type: "cudnn" or "splash", whichever the platform has (splash
interpreted on CPUs); "xla", as the models use it without a fast kernel; and "blocks",
which visits only blocks of keys that are seen. What a kernel refuses is a figure too.
"""

import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accelerator_ledger import Case

PLANNED = 60.0  # seconds of a case on an accelerator, compilation included
FAST = {"gpu": "cudnn", "tpu": "splash", "cpu": "splash"}
REPEATS, ENOUGH = 20, 1.0  # turns, and seconds after which there are no more of them
DENSE_BYTES = 16e9  # of float32 scores over all pairs, for which they are the reference


class Shape(NamedTuple):
  """Of the queries; keys and values may have fewer heads."""

  rows: int
  length: int
  heads: int
  kv_heads: int
  width: int


# What rows look like, and the shapes: LLaVA-1.5's and Qwen2.5-VL's decoder and tower.
LAYOUTS = {
  "packed": Shape(8, 2048, 32, 32, 128),
  "shared": Shape(8, 2048, 32, 32, 128),
  "grouped": Shape(4, 4096, 28, 4, 128),
  "window": Shape(4, 4096, 32, 8, 128),
  "whole": Shape(64, 577, 16, 16, 64),
  "images": Shape(1, 8192, 16, 16, 80),
  "near": Shape(1, 16384, 16, 16, 80),
  "many": Shape(1, 32768, 16, 16, 80),
}
TINY = {name: Shape(1, 200, 2, 1 if name == "grouped" else 2, 16) for name in LAYOUTS}
DTYPES = ("bfloat16", "float32")
CAUSAL = ("packed", "shared", "grouped", "window")
NEAR = 64  # patches of a window of Qwen2.5-VL's tower


def list_cases(arguments: Any) -> list[Case]:
  tiny = arguments.sizes == "tiny"
  shapes = TINY if tiny else LAYOUTS
  seconds = 5.0 if tiny else PLANNED
  settings = {"matmul": 512 if tiny else 8192}
  widths = (64, 128, 4, 16) if tiny else (4096, 11008, 32, 128)
  return [
    Case("kernels/machine", settings, seconds),
    Case("kernels/model", {"widths": widths}, seconds),
    *(
      Case(f"kernels/{name}", {"shape": shape}, seconds)
      for name, shape in shapes.items()
    ),
  ]


def measure(key: str, settings: dict[str, Any], work: Path) -> dict[str, Any]:
  """A case's figures by name."""
  del work
  name = key.split("/")[1]
  if name == "machine":
    return measure_machine(settings["matmul"])
  figures: dict[str, Any] = {}
  for dtype in DTYPES:
    if name == "model":
      found = measure_model(settings["widths"], dtype)
    else:
      found = measure_layout(name, Shape(*settings["shape"]), dtype)
      figures["shape"] = settings["shape"]
    figures |= {f"{dtype} {what}": value for what, value in found.items()}
  return figures


def measure_machine(side: int) -> dict[str, Any]:
  """The rates that others are held against: products and copies."""
  import jax
  import jax.numpy as jnp

  from mllm_selector_jax.planning import estimate
  from mllm_selector_jax.training import peaks

  figures: dict[str, Any] = {}
  for dtype in ("float32", "bfloat16"):
    rate = estimate.measure_matmul(dtype, side)
    figures[f"matmul {dtype} TFLOP/s"] = rate / 1e12
  x = jax.random.normal(jax.random.key(0), (side, side, 4))
  seconds = time_turns(jax.jit(lambda x: x + jnp.float32(1)), (x,))
  figures["copy GB/s"] = 2 * x.nbytes / seconds / 1e9
  peak = peaks.peak_flops(jax.devices()[0])
  figures["published TFLOP/s"] = peak and peak / 1e12
  return figures


def draw_layout(name: str, shape: Shape) -> Any:
  """Samples of many lengths in rows that end in padding; None: all see all."""
  import jax.numpy as jnp

  from mllm_selector_jax.models.attention import Layout

  if name == "whole":
    return None
  rng = np.random.default_rng(0)
  segments, positions, prefixes = np.zeros((3, shape.rows, shape.length), np.int32)
  mean = NEAR if name == "near" else shape.length // 6
  for row in range(shape.rows):
    place, number, trunk = 0, 1, 0
    while place < shape.length * 0.95:
      size = int(rng.integers(mean // 2, mean + 1 if name == "near" else 2 * mean))
      size = min(size, shape.length - place)
      cut = slice(place, place + size)
      segments[row, cut] = number
      positions[row, cut] = np.arange(size)
      if name == "shared" and number % 3 == 1:
        trunk = number
        first = size
      elif name == "shared":  # two branches of each trunk
        prefixes[row, cut] = trunk
        positions[row, cut] += first
      place, number = place + size, number + 1
  return Layout(
    jnp.asarray(segments),
    jnp.asarray(positions),
    jnp.asarray(prefixes) if name == "shared" else None,
    window=shape.length // 16 if name == "window" else None,
    causal=name in CAUSAL,
    longest=NEAR if name == "near" else None,
  )


def make_blocks(layout: Any) -> Any:
  """Attention that visits the blocks of keys that are seen."""
  from mllm_selector_jax.models import attention, block_attention

  tokens, rule = attention.split_layout(layout)
  blocks = block_attention.cut_rows(tokens, rule)
  return lambda *inputs: block_attention.attend(*inputs, blocks, rule)


def make_reference(layout: Any, shape: Shape) -> tuple[str, Any]:
  """Attention over all pairs, or in blocks where no memory holds them."""
  from mllm_selector_jax.models import attention

  if layout is None:
    return "all pairs", attention.make_biased(None)
  if 4 * shape.rows * shape.heads * shape.length**2 > DENSE_BYTES:
    return "blocks", make_blocks(layout)
  return "all pairs", attention.make_biased(attention.make_bias(layout))


def count_seen(layout: Any, shape: Shape) -> float:
  """Pairs of a query and a key that it sees, of one head."""
  if layout is None:
    return shape.rows * shape.length**2
  from mllm_selector_jax.models import attention

  rows = range(shape.rows)
  seen = 0
  for row in rows:  # one at a time, since all pairs of a row may be a gigabyte
    one = layout._replace(
      **{
        name: getattr(layout, name)[row : row + 1]
        for name in ("segments", "positions", "prefixes")
        if getattr(layout, name) is not None
      }
    )
    real = one.segments[0] > 0
    seen += int((attention.find_seen(one)[0] & real[:, None]).sum())
  return seen


def measure_layout(name: str, shape: Shape, dtype: str) -> dict[str, Any]:
  """Errors, times and memory of every kernel on one layout."""
  import jax

  from mllm_selector_jax.models import attention

  layout = draw_layout(name, shape)
  sizes = (shape.heads, shape.kv_heads, shape.kv_heads, shape.heads)
  keys = jax.random.split(jax.random.key(1), len(sizes))
  drawn = [
    jax.random.normal(key, (shape.rows, shape.length, heads, shape.width), dtype)
    for key, heads in zip(keys, sizes, strict=True)
  ]
  real = None if layout is None else layout.segments[..., None, None] > 0
  title, reference = make_reference(layout, shape)
  with jax.default_matmul_precision("highest"):
    exact = make_both(reference, real)(*(x.astype("float32") for x in drawn))
  flops = 4.0 * shape.heads * shape.width * count_seen(layout, shape)
  figures: dict[str, Any] = {"reference": title}
  fast = FAST[jax.default_backend()]
  kernels = {kernel: attention.KERNELS[kernel] for kernel in (fast, "xla")}
  if layout is not None:
    kernels["blocks"] = make_blocks
  for kernel, make in kernels.items():
    precision = "highest" if dtype == "float32" else "default"
    try:
      with jax.default_matmul_precision(precision):
        found = measure_kernel(make(layout), real, drawn, exact, flops)
    except Exception as error:  # kernels raise whatever they like
      figures[f"{kernel} error"] = str(error).strip().partition("\n")[0][:300]
      continue
    figures |= {f"{kernel} {what}": value for what, value in found.items()}
  return figures


def make_both(attend: Any, real: Any) -> Any:
  """A jitted function to what is mixed and the gradients of query, key and value."""
  import jax
  import jax.numpy as jnp

  def clear(mixed):
    return mixed if real is None else jnp.where(real, mixed, 0)

  def both(query, key, value, weights):
    mixed, pull = jax.vjp(lambda *inputs: clear(attend(*inputs)), query, key, value)
    return mixed, *pull(weights.astype(mixed.dtype))

  return jax.jit(both)


def measure_kernel(
  attend: Any, real: Any, drawn: list, exact: tuple, flops: float
) -> dict[str, Any]:
  """One kernel's figures; errors are the largest relative distance of a vector."""
  import jax

  figures: dict[str, Any] = {}
  for name, fn, inputs, factor in (
    ("forward", jax.jit(attend), drawn[:3], 1),
    ("both", make_both(attend, real), drawn, 3),
  ):
    program = fn.lower(*inputs).compile()
    if name == "both":
      names = ("forward", "query", "key", "value")
      for place, value, wanted in zip(names, program(*inputs), exact, strict=True):
        figures[f"{place} apart"] = distance(value, wanted)
    seconds = time_turns(program, inputs)
    figures[f"{name} ms"] = 1e3 * seconds
    figures[f"{name} TFLOP/s"] = factor * flops / seconds / 1e12
    figures[f"{name} MB"] = program.memory_analysis().temp_size_in_bytes / 1e6
  return figures


def distance(found: Any, wanted: Any) -> float:
  """The largest distance of a vector, relative to the mean length of all that count.

  Gradients of keys that few queries see are near 0, and errors relative to their own
  length would say nothing.
  """
  found, wanted = (np.asarray(x, np.float32) for x in (found, wanted))
  lengths = np.linalg.norm(wanted, axis=-1)
  apart = np.linalg.norm(found - wanted, axis=-1)
  return float(apart.max() / lengths[lengths > 0].mean())


def time_turns(fn: Any, inputs: tuple) -> float:
  """Median seconds of a compiled function, after a turn that warms up."""
  import jax

  jax.block_until_ready(fn(*inputs))
  turns, first = [], time.perf_counter()
  while len(turns) < 3 or (
    len(turns) < REPEATS and time.perf_counter() - first < ENOUGH
  ):
    begun = time.perf_counter()
    jax.block_until_ready(fn(*inputs))
    turns.append(time.perf_counter() - begun)
  return statistics.median(turns)


def measure_model(widths: list[int], dtype: str) -> dict[str, Any]:
  """What a run's own check of the first batch says, on a model of two layers."""
  import jax

  from benchmarks.attention import make_batch
  from mllm_selector_jax.models import attention_check, mllm
  from mllm_selector_jax.models.config import MllmConfig
  from mllm_selector_jax.models.decoder_config import DecoderConfig
  from mllm_selector_jax.models.vision_config import VisionConfig

  width, mlp, heads, head_dim = widths
  config = MllmConfig(
    VisionConfig(16, 24, 2, 2, image_size=16, patch_size=8),
    DecoderConfig(40, width, mlp, 2, heads=heads, kv_heads=heads, head_dim=head_dim),
    image_token=4,
    dtype=dtype,
    attention=FAST[jax.default_backend()],
  )
  params, batch = mllm.init(config, 0), make_batch(np.random.default_rng(0))
  said: list[str] = []
  chosen = attention_check.choose_kernel(config, params, batch, said.append)
  return {"asked": config.attention, "chosen": chosen.attention, "said": " ".join(said)}
