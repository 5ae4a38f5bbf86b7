"""Stage 1 of LLaVA-1.5 7B (projector only), as in LLaVA's scripts/v1_5/pretrain.sh.

mllm-selector assemble --decoder=lmsys/vicuna-7b-v1.5 \
    --vision=openai/clip-vit-large-patch14-336 --out=bases/llava-7b
then `check` and `align` with

    --config=llava15_7b_align --workdir=runs/align --config.model.path=bases/llava-7b \
    --config.pool.data=blip_laion_cc_sbu_558k.json --config.pool.images=images
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.model.conversation = "plain"
  cfg.model.pad_images = False  # LLaVA pads in its second stage only
  cfg.model.remat = "full"
  cfg.mesh.data = 1
  cfg.mesh.fsdp = -1
  return cfg
