"""Known vision-language models that cannot be run, with what they have that is new.

A family is taken out here when it gets a file in `model_families`.
"""

# By the model_type of config.json; a message goes on with "model_type is '...', ".
OTHERS = {
  "qwen2_5_omni": "which also takes and gives audio; qwen2_5_vl can be run",
  "qwen3_omni_moe": "which also takes and gives audio; qwen3_vl can be run",
  "qwen3_5_moe": "whose decoder sends each token to a few of many experts; the dense"
  " models, qwen3_5, can be run",
  "glm4v_moe": "GLM-4.5V, whose decoder sends each token to a few of many experts;"
  " GLM-4.1V, glm4v, can be run",
  "pixtral": "a Pixtral tower alone, which can be run only as a part of a whole Pixtral"
  " or Mistral 3",
  "paligemma": "whose prompt, image and text, is read in both directions, and only its"
  " answer from left to right, so that rows of one image cannot share it; gemma3 can be"
  " run",
  "gemma3n": "whose layers have embeddings of their own for each token, and whose"
  " vision tower is a MobileNet",
  "gemma4_unified": "Gemma 4 12B, which has no vision tower, so that patches enter the"
  " decoder through a few layers, and which also takes audio; 31B, E2B and E4B, gemma4,"
  " can be run",
  "mllama": "whose decoder reads images in layers of cross-attention, and not as"
  " tokens",
  "llama4": "whose decoder sends each token to a few of many experts",
  "idefics": "whose decoder reads images in layers of cross-attention, and not as"
  " tokens",
  "idefics2": "which makes a few tokens of an image with a perceiver resampler;"
  " idefics3 can be run",
  "blip-2": "which makes tokens of an image with a Q-Former",
  "instructblip": "which makes tokens of an image with a Q-Former that reads the"
  " question",
  "deepseek_vl": "whose projector and image processor have forms of their own",
  "deepseek_vl_hybrid": "whose second vision tower is that of Segment Anything",
  "aya_vision": "whose decoder, Cohere2, runs attention and MLP side by side, and whose"
  " projector has a gate",
  "cohere2_vision": "whose decoder, Cohere2, runs attention and MLP side by side, and"
  " whose projector has a gate",
  "ovis2": "which makes an image's features a weighted sum of the rows of a table",
  "phi4_multimodal": "whose decoder has other adapters for images than for text, and"
  " which also takes audio",
  "llava_next_video": "which pools the frames of videos; llava_next can be run",
  "video_llava": "whose videos have a tower of their own; llava can be run",
  "fast_vlm": "whose vision tower is the convolutional FastViT of timm",
  "perception_lm": "whose vision tower is a Perception Encoder of timm",
  "janus": "which also draws images, and reads them with a tower of its own",
  "chameleon": "whose images are tokens of a codebook",
  "emu3": "whose images are tokens of a codebook",
  "florence2": "whose decoder reads images and text from an encoder by cross-attention",
  "kosmos-2": "whose images are read by a resampler with learned queries",
  "fuyu": "which has no vision tower: patches enter the decoder through a single layer",
  "aria": "whose decoder sends each token to a few of many experts",
  "kimi_k25": "whose decoder sends each token to a few of many experts",
  "molmo2": "whose projector attends from the mean of neighbouring patches to them",
  "lfm2_vl": "whose decoder has layers of short convolutions in the place of attention",
}
