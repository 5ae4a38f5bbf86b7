"""Host memory while a multi-gigabyte checkpoint is read into the parameters.

  python benchmarks/import_memory.py [--gigabytes=2] [--devices=1]

Makes a random bfloat16 LLaVA of about that size on the spot, in shards, reads it in
a fresh process, and compares the peak of the resident memory with the parameters
kept (float32), the largest tensor as stored and as float32, and what the process
held before. On a CPU the parameters themselves are host memory. With several
(fake) devices they are laid out over the mesh's fsdp axis, as a run does it.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl import app, flags

GIGABYTES = flags.DEFINE_float("gigabytes", 2.0, "Of the checkpoint.")
DEVICES = flags.DEFINE_integer("devices", 1, "Fake CPU devices.")
SHARD = 1 << 29
WIDTH, MLP = 2048, 5504


def make(folder: Path, layers: int) -> None:
  """A random model with the layer shapes of a 1.3B Llama."""
  import transformers

  from mllm_selector_jax.inputs.base_model import DEMO_BASE
  from mllm_selector_jax.models import huggingface
  from mllm_selector_jax.models.huggingface import mapping

  config = transformers.LlavaConfig(
    vision_config=transformers.CLIPVisionConfig(image_size=336, patch_size=14),
    text_config=transformers.LlamaConfig(
      vocab_size=32064,
      hidden_size=WIDTH,
      intermediate_size=MLP,
      num_hidden_layers=layers,
      num_attention_heads=16,
    ),
    image_token_index=4,
  )
  config.save_pretrained(folder)
  processor = json.loads((DEMO_BASE / "preprocessor_config.json").read_text())
  processor |= {
    "size": {"shortest_edge": 336},
    "crop_size": {"height": 336, "width": 336},
  }
  (folder / "preprocessor_config.json").write_text(json.dumps(processor))
  rng = np.random.default_rng(0)
  where, shard, held = {}, {}, 0

  def flush():
    nonlocal shard, held
    name = f"model-{len(set(where.values())) + 1:05}.safetensors"
    safetensors.numpy.save_file(shard, folder / name)
    where.update(dict.fromkeys(shard, name))
    shard, held = {}, 0

  for leaf in mapping.list_leaves(huggingface.read_config(folder)):
    for name in leaf.names:
      tensor = rng.standard_normal(leaf.shape, np.float32).astype(ml_dtypes.bfloat16)
      shard[name] = tensor
      held += tensor.nbytes
      if held > SHARD:
        flush()
  flush()
  index = {"metadata": {}, "weight_map": where}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def resident() -> int:
  status = Path("/proc/self/status").read_text()
  return int(status.split("VmRSS:")[1].split()[0]) << 10


def read(folder: str) -> None:
  """Reads the model and prints the figures, in bytes and seconds."""
  import jax

  from mllm_selector_jax import sharding
  from mllm_selector_jax.models import huggingface, mllm
  from mllm_selector_jax.models.axes import logical_axes

  config = huggingface.read_config(folder)
  shardings = None
  if jax.device_count() > 1:
    abstract = mllm.abstract(config)
    mesh = sharding.make_mesh(1, -1, 1)
    axes = logical_axes(abstract)
    shardings = sharding.parameter_shardings(abstract, axes, mesh)
  jax.block_until_ready(jax.numpy.zeros(8) + 1)
  before, peak, done = resident(), 0, threading.Event()

  def watch():
    nonlocal peak
    while not done.is_set():
      peak = max(peak, resident())
      time.sleep(0.002)

  watcher = threading.Thread(target=watch)
  watcher.start()
  start = time.perf_counter()
  params = jax.block_until_ready(huggingface.read_params(folder, config, shardings))
  seconds = time.perf_counter() - start
  done.set()
  watcher.join()
  # What lies on the devices, copies of the small arrays that are not cut included.
  kept = sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(params)
    for shard in leaf.addressable_shards
  )
  print(json.dumps({"before": before, "peak": peak, "kept": kept, "s": seconds}))


def main(argv):
  if len(argv) > 1:
    return read(argv[1])
  with tempfile.TemporaryDirectory() as folder:
    per_layer = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * MLP)
    make(Path(folder), max(1, round(GIGABYTES.value * 1e9 / per_layer)))
    stored = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    flag = f"--xla_force_host_platform_device_count={DEVICES.value}"
    done = subprocess.run(
      [sys.executable, __file__, folder],
      stdout=subprocess.PIPE,
      text=True,
      check=True,
      env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag},
    )
  found = json.loads(done.stdout.splitlines()[-1])
  largest = 32064 * WIDTH
  over = found["peak"] - found["before"] - found["kept"]
  print(
    f"{DEVICES.value} devices: checkpoint {stored / 1e9:.2f} GB bfloat16,"
    f" read in {found['s']:.1f} s;"
    f" parameters {found['kept'] / 1e9:.2f} GB float32, peak over them and what the"
    f" process held: {over / 1e9:.3f} GB; largest tensor {2 * largest / 1e9:.3f} GB"
    f" stored, {4 * largest / 1e9:.3f} GB as float32"
  )


if __name__ == "__main__":
  app.run(main)
