"""LoRA fine-tuning of Qwen2.5-VL 7B with the values of ms-swift's examples.

The adapters are of the language model's linear layers alone; the projector (merger) and
the vision tower are frozen. With --config.tune.trainable=all and
--config.tune.lora.modules=all (and the same for seed) they have adapters, too. Images
have at most 1,280 tokens.

mllm-selector --config=qwen25_vl_7b_lora --workdir=runs/qwen_lora \
    --config.pool.data=pool.json --config.pool.images=images
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.model.path = "Qwen/Qwen2.5-VL-7B-Instruct"
  cfg.model.remat = "full"
  cfg.model.resize_pixels = 1280 * 28 * 28
  # The base is 33 GB in float32, so it is sharded over all devices.
  cfg.mesh.data = 1
  cfg.mesh.fsdp = -1
  for section in (cfg.seed, cfg.tune):
    section.batch = 16
    section.learning_rate = 1e-4
    section.warmup = 0.05
    section.weight_decay = 0.1
    section.b2 = 0.95
    section.trainable = "decoder_only"
    section.lora.rank = 8
    section.lora.alpha = 32.0
  return cfg
