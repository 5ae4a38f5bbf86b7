"""The published peaks of chips, in FLOP/s."""

from typing import Any

# Published dense bfloat16 peaks, FLOP/s a chip, by jax's name of the device. Google's
# pages cloud.google.com/tpu/docs/v4, v5e, v5p and v6e; NVIDIA's data sheets of A100,
# L40S, H100 (SXM, PCIe, NVL), H200 and HGX B200, without sparsity; for the RTX 4090 the
# white paper of the Ada architecture, with sums in float32.
PEAKS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "NVIDIA GeForce RTX 4090": 165.2e12,
  "NVIDIA L40S": 362e12,
  "NVIDIA A100-SXM4-40GB": 312e12,
  "NVIDIA A100-SXM4-80GB": 312e12,
  "NVIDIA A100-PCIE-40GB": 312e12,
  "NVIDIA A100 80GB PCIe": 312e12,
  "NVIDIA H100 80GB HBM3": 989e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100 NVL": 835e12,
  "NVIDIA H200": 989e12,
  "NVIDIA B200": 2250e12,
}


def peak_flops(device: Any) -> float | None:
  """The device's published bfloat16 peak, FLOP/s; None where it is not known."""
  return PEAKS.get(device.device_kind)
