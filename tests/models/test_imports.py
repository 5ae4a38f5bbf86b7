import json
import subprocess
import sys

HEAVY = ("transformers", "grain", "tensorflow_datasets", "ml_collections", "pyarrow")


def test_the_models_pull_in_nothing_heavy():
  code = (
    "import json, sys\n"
    "from mllm_selector_jax.models import axes, mllm\n"
    "from mllm_selector_jax.models import huggingface\n"
    "print(json.dumps(sorted(sys.modules)))"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  ).stdout
  loaded = {name.partition(".")[0] for name in json.loads(out)}
  assert "flax" in loaded
  assert not loaded.intersection((*HEAVY, "torch", "huggingface_hub"))
