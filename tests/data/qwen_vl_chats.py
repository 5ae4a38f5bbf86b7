"""Chat templates of the structure of Qwen-VL's published ones, and their tokenizer.

A message's content is a text or a list of parts, and the template writes the marks
around an image. Qwen2-VL and Qwen2.5-VL begin a conversation with a system text of
their own; Qwen3-VL writes none.
"""

from tests.llama_like import make_tokenizer

START, PAD, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
MARKS = (START, END, "<|vision_pad|>", PAD, "<|video_pad|>")
CONTENT = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")

QWEN2_VL = (
  "{% set seen = namespace(images=0, videos=0) %}"
  "{% for message in messages %}"
  "{% if loop.first and message['role'] != 'system' %}"
  "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
  "<|im_start|>{{ message['role'] }}\n"
  "{% if message['content'] is string %}{{ message['content'] }}"
  "{% else %}{% for part in message['content'] %}"
  "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
  "{% set seen.images = seen.images + 1 %}"
  "{% if add_vision_id %}Picture {{ seen.images }}: {% endif %}"
  "<|vision_start|><|image_pad|><|vision_end|>"
  "{% elif part['type'] == 'video' or 'video' in part %}"
  "{% set seen.videos = seen.videos + 1 %}"
  "{% if add_vision_id %}Video {{ seen.videos }}: {% endif %}"
  "<|vision_start|><|video_pad|><|vision_end|>"
  "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
  "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_VL = (
  "{%- set seen = namespace(images=0) -%}"
  "{%- macro write(content, pictured) -%}"
  "{%- if content is string -%}{{- content -}}"
  "{%- else -%}{%- for part in content -%}"
  "{%- if pictured and (part.type == 'image' or 'image' in part) -%}"
  "{%- set seen.images = seen.images + 1 -%}"
  "{%- if add_vision_id -%}{{- 'Picture ' ~ seen.images ~ ': ' -}}{%- endif -%}"
  "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
  "{%- elif 'text' in part -%}{{- part.text -}}{%- endif -%}"
  "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
  "{%- if tools -%}"
  "{{- '<|im_start|>system\n' ~ (tools | tojson) ~ '<|im_end|>\n' -}}"
  "{%- elif messages[0].role == 'system' -%}"
  "{{- '<|im_start|>system\n' ~ write(messages[0].content, false) -}}"
  "{{- '<|im_end|>\n' -}}{%- endif -%}"
  "{%- for message in messages -%}"
  "{%- if message.role == 'user' -%}"
  "{{- '<|im_start|>user\n' ~ write(message.content, true) ~ '<|im_end|>\n' -}}"
  "{%- elif message.role == 'assistant' -%}"
  "{{- '<|im_start|>assistant\n' ~ write(message.content, false) -}}"
  "{%- for call in message.tool_calls or [] -%}"
  "{{- '\n<tool_call>\n' ~ (call | tojson) ~ '\n</tool_call>' -}}{%- endfor -%}"
  "{{- '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
  "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
SOURCES = {
  "qwen2_vl": QWEN2_VL,
  "qwen2_5_vl": QWEN2_VL,
  "qwen3_vl": QWEN3_VL,
  "qwen3_5": QWEN3_VL,
  "qwen3_vl_moe": QWEN3_VL,
}


def make_qwen_tokenizer(source=None):
  """A tokenizer with the tokens of Qwen-VL; no text begins with BOS."""
  tokenizer = make_tokenizer("qwen", begins=False)
  tokenizer.add_special_tokens({"additional_special_tokens": [*MARKS, *CONTENT]})
  tokenizer.chat_template = source
  return tokenizer
