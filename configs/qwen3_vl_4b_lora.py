"""LoRA fine-tuning of Qwen3-VL 4B with the values of ms-swift's examples.

The adapters are of the language model's linear layers alone; the projector (merger) and
the vision tower are frozen. Images have at most 1,024 tokens.

mllm-selector --config=qwen3_vl_4b_lora --workdir=runs/qwen3_lora \
    --config.pool.data=pool.json --config.pool.images=images
"""

from mllm_selector_jax.configs import qwen25_vl_7b_lora


def get_config():
  cfg = qwen25_vl_7b_lora.get_config()
  cfg.model.path = "Qwen/Qwen3-VL-4B-Instruct"
  cfg.model.resize_pixels = 1024 * 32 * 32
  for section in (cfg.seed, cfg.tune):
    section.batch = 32  # 16 a device, on 2 devices
  return cfg
