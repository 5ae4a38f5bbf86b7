"""LoRA fine-tuning of LLaVA-1.5 7B by LLaVA's own recipe, without its dropout of .05.

mllm-selector --config=llava15_7b_lora --workdir=runs/lora \
    --config.pool.data=llava_v1_5_mix665k.json --config.pool.images=images
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.model.remat = "full"
  # The base is 27 GB in float32, so it is sharded over all devices.
  cfg.mesh.data = 1
  cfg.mesh.fsdp = -1
  for section in (cfg.seed, cfg.tune):
    section.group_by_modality_length = True
    section.accumulate = 2  # with 1, a v5e-8 lacks 3 GiB per device
    section.learning_rate = 2e-4
    section.projector_learning_rate = 2e-5
    section.lora.rank = 128
    section.lora.alpha = 256.0
  return cfg
