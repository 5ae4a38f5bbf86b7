"""Warns if a base model's own chat template looks unlike the chosen template."""

from typing import Any

from mllm_selector_jax.data.tokens.conversation_templates import WRITTEN

# Choices that need no warning: "chat" follows the base's own template, and "plain" has
# no turns.
CHOSEN = ("chat", "plain")
# A text by which a chat template is recognised, the name of its format, and the name of
# our template of this format, if there is one.
MARKS = (
  ("<|im_start|>", "ChatML", "chatml"),
  ("<|start_header_id|>", "Llama 3's form", None),
  ("<start_of_turn>", "Gemma's form", None),
  ("<|assistant|>", "Zephyr's form", None),
  ("[INST]", "Llama 2's form", "llama-2"),
  ("ASSISTANT:", "Vicuna's form", "vicuna_v1"),
)


def describe_other(conversation: str, tokenizer: Any) -> str | None:
  """Describes how the base's own chat template differs from the chosen one.

  Args:
    conversation: the value of `model.conversation`.
    tokenizer: the tokenizer of the base model.

  Returns:
    A sentence; None if the templates are alike, or if nothing can be said.
  """
  template = tokenizer.chat_template
  if isinstance(template, dict):  # several, by name
    template = template.get("default")
  if conversation in CHOSEN or not template:
    return None
  entry = next((entry for entry in MARKS if entry[0] in template), None)
  if entry is None or entry[2] == conversation:
    return None
  mark, form, ours = entry
  if ours is not None and WRITTEN[ours].specials:
    vocabulary = tokenizer.get_vocab()
    if any(name not in vocabulary for name in WRITTEN[ours].specials):
      ours = None
  return (
    f"its own chat template looks like {form} (it writes {mark}), but"
    f" model.conversation is {conversation!r}. A base answers best in the form that it"
    f" was tuned with: --config.model.conversation={ours or 'chat'}."
  )
