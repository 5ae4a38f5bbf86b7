"""manifest: writes `SHA256SUMS`, the hashes of everything that the workdir holds."""

from mllm_selector_jax.pipeline.manifest import write_manifest
from mllm_selector_jax.runs import peers
from mllm_selector_jax.runs.context import Run


def manifest(run: Run) -> None:
  """Writes the hashes of all complete artifacts for `sha256sum -c`."""
  run.begin("manifest")
  if peers.is_first_process():
    write_manifest(run)
