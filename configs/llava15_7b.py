"""LLaVA-1.5 7B, all of the decoder tuned, as scripts/v1_5/finetune.sh of LLaVA does.

The base is the aligned one (llava15_7b_align); a hub name of the tuned one stands in
the default config. For 8 devices:

mllm-selector --config=llava15_7b --workdir=runs/full \
    --config.model.path=runs/align/aligned/hf \
    --config.pool.data=llava_v1_5_mix665k.json --config.pool.images=images
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.model.remat = "full"
  # Parameters, gradients and moments of 7B, float32, are over 100 GB: all devices
  # share them.
  cfg.mesh.data = 1
  cfg.mesh.fsdp = -1
  for section in (cfg.seed, cfg.tune):
    section.group_by_modality_length = True
    section.batch = 128
    section.learning_rate = 2e-5
    section.warmup = 0.03
    section.weight_decay = 0.0
    section.epochs = 1
  return cfg
