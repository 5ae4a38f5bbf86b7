"""A chat template of the structure of GLM-4.1V's published one, and its tokens.

An answer ends where the next message begins; the template writes no token behind the
last one.
"""

BEGIN, IMAGE, END = "<|begin_of_image|>", "<|image|>", "<|end_of_image|>"
VIDEO = ("<|begin_of_video|>", "<|video|>", "<|end_of_video|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
START = ("[gMASK]", "<sop>")
GLM4V = (
  "[gMASK]<sop>"
  "{%- macro write(content) -%}"
  "{%- if content is string -%}{{- content -}}"
  "{%- else -%}{%- for part in content -%}"
  "{%- if part.type == 'image' or 'image' in part -%}"
  "{{- '<|begin_of_image|><|image|><|end_of_image|>' -}}"
  "{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}"
  "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
  "{%- for message in messages -%}"
  "{{- '<|' ~ message.role ~ '|>\n' ~ write(message.content) -}}"
  "{%- endfor -%}"
  "{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}"
)
