"""What a base's own chat template looks like, beside the template that is chosen."""

from typing import Any

from mllm_selector_jax.data.templates import WRITTEN

CHOSEN = ("chat", "plain")  # follows the base's own; has no turns
# What a chat template writes, the name of its form, and ours of it, if any.
MARKS = (
  ("<|im_start|>", "ChatML", "chatml"),
  ("<|start_header_id|>", "Llama 3's form", None),
  ("<start_of_turn>", "Gemma's form", None),
  ("<|assistant|>", "Zephyr's form", None),
  ("[INST]", "Llama 2's form", "llama-2"),
  ("ASSISTANT:", "Vicuna's form", "vicuna_v1"),
)


def describe_other(conversation: str, tokenizer: Any) -> str | None:
  """What speaks against the chosen template, as a sentence; None if nothing does.

  Args:
    conversation: `model.conversation`.
    tokenizer: the base's.
  """
  template = tokenizer.chat_template
  if isinstance(template, dict):  # several, by name
    template = template.get("default")
  if conversation in CHOSEN or not template:
    return None
  looks = next((look for look in MARKS if look[0] in template), None)
  if looks is None or looks[2] == conversation:
    return None
  mark, form, ours = looks
  if ours is not None and WRITTEN[ours].specials:
    known = tokenizer.get_vocab()
    ours = ours if all(name in known for name in WRITTEN[ours].specials) else None
  return (
    f"its own chat template looks like {form} (it writes {mark}), but"
    f" model.conversation is {conversation!r}. A base that was tuned with that form"
    f" answers best when it is asked so: --config.model.conversation={ours or 'chat'}."
  )
