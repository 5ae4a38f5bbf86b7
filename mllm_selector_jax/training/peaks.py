"""The published peaks of chips, in FLOP/s."""

from typing import Any

# Published dense bfloat16 peaks, FLOP/s a chip, by jax's name of the device: Google's
# pages cloud.google.com/tpu/docs/v5e, v5p and v6e; NVIDIA's data sheets of H100 (SXM,
# PCIe, NVL) and H200, without sparsity.
PEAKS = {
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "NVIDIA H100 80GB HBM3": 989e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100 NVL": 835e12,
  "NVIDIA H200": 989e12,
}


def peak_flops(device: Any) -> float | None:
  """The device's published bfloat16 peak, FLOP/s; None where it is not known."""
  return PEAKS.get(device.device_kind)
