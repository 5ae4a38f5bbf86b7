"""Full fine-tuning of Qwen2.5-VL 7B by the recipe of its authors (qwen-vl-finetune).

The language model is trained, and the projector (merger) and the vision tower are not.
Images have at most 576 tokens. For 8 devices:

mllm-selector --config=qwen25_vl_7b --workdir=runs/qwen \
    --config.pool.data=pool.json --config.pool.images=images
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.model.path = "Qwen/Qwen2.5-VL-7B-Instruct"
  cfg.model.remat = "full"
  cfg.model.resize_pixels = 576 * 28 * 28
  cfg.model.max_length = 4096
  # Parameters, gradients and optimizer moments of 8B parameters in float32 are over
  # 110 GB, so they are sharded over all devices.
  cfg.mesh.data = 1
  cfg.mesh.fsdp = -1
  cfg.score.row_length = 4096
  for section in (cfg.seed, cfg.tune):
    section.batch = 128  # 4 a device, accumulated 4 times, on 8 devices
    section.learning_rate = 2e-7
    section.warmup = 0.03
    section.weight_decay = 0.01
    section.trainable = "decoder_only"
    section.row_length = 4096
  return cfg
