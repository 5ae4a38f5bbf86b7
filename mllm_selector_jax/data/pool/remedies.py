"""What would keep a row that was set aside, by the reason."""

from mllm_selector_jax.types import REASONS

# By the reason for which a row is set aside, what would keep it.
REMEDIES = {
  "malformed": "docs/pools.md lists the forms that are read; convert the records",
  "duplicate id": "--config.pool.duplicate_ids=keep takes an id for a mere label",
  "duplicate row": "--config.pool.duplicate_rows=keep keeps rows that are the same",
  "tool calls": "take the calls out of the conversations, or leave these rows out",
  "video": "--config.pool.video_frames=8 takes frames that records list as images",
  "audio": "this model takes images alone; leave these rows out",
  "no supervised token": "answers are empty, masked, or stand after"
  " --config.model.max_length tokens",
  "too long": "raise --config.model.max_length, or give --config.pool.long_rows=cut",
  "masked by LLaVA": "LLaVA's own training loses such rows; another"
  " --config.model.conversation does not",
  "image marks": "put one <image> into the questions for each image of the record",
  "boxes": "objects needs a box inside the image for each <bbox> of the text, and a"
  " name for each <ref-object>",
  "box form": "name the form in which boxes are to be written:"
  " --config.model.box_form=qwen3 for thousandths in a list",
  "too many images": "raise --config.pool.max_images, or give none",
  "missing image": "is --config.pool.images=FOLDER[,FOLDER] what the paths are"
  " relative to?",
  "unreadable image": "download or copy these files again",
  "huge image": "raise --config.pool.max_pixels if these images are sound",
  "unsupported image": "convert the files to JPEG or PNG",
  "unsafe path": "add the folder that holds them to --config.pool.images;"
  " --config.pool.links=follow follows links that lead out of it",
  "not a number": "the model's loss of these rows is not finite",
}
assert REMEDIES.keys() == REASONS.keys()
