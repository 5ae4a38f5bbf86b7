"""Full fine-tuning of LLaVA-1.5 7B by the recipe of LLaVA's scripts/v1_5/finetune.sh.

The base should be an aligned one (llava15_7b_align); the hub name in the default config
is that of a model which is already fine-tuned. For 8 devices:

mllm-selector --config=llava15_7b --workdir=runs/full \
    --config.model.path=runs/align/aligned/hf \
    --config.pool.data=llava_v1_5_mix665k.json --config.pool.images=images
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.model.conversation = "vicuna_v1"
  cfg.model.remat = "full"
  # Parameters, gradients and optimizer moments of 7B parameters in float32 are over
  # 100 GB, so they are sharded over all devices.
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
