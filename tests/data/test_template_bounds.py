"""Chat templates that would run for ever or fill the memory end with a message."""

import time

import pytest

from mllm_selector_jax.data.tokens import template_bounds
from mllm_selector_jax.types import InputError
from tests.data.test_templates import SOURCES, make

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
LOOP = "{% for _ in range(99999) %}"
ENDLESS = {
  "loops in loops": f"{LOOP * 3}x{'{% endfor %}' * 3}",
  "a condition of a loop": f"{LOOP}{{% for a in range(99999) if false %}}{{% endfor %}}"
  "{% endfor %}",
  "a loop in a condition": "{% for a in range(99999) if range(99999)|map('string')|list"
  " and false %}{% endfor %}",
  "recursion": "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n else '' }}{% endmacro %}"
  "{{ m(60) }}",
  "a power": "{{ (9 ** 9 ** 9) % 7 }}",
  "a power step by step": "{% set n = namespace(v=10) %}"
  "{% for _ in range(64) %}{% set n.v = n.v * n.v %}{% endfor %}",
  "a product": "{{ 'a' * 10 ** 12 }}",
  "a product of lists": "{{ [0] * 10 ** 12 }}",
  "doubled by ~": "{% set n = namespace(v='a') %}"
  "{% for _ in range(64) %}{% set n.v = n.v ~ n.v %}{% endfor %}",
  "doubled by +": "{% set n = namespace(v='a') %}"
  "{% for _ in range(64) %}{% set n.v = n.v + n.v %}{% endfor %}",
  "joined": "{% set n = namespace(v='abc') %}"
  "{% for _ in range(64) %}{% set n.v = [n.v, n.v]|join(n.v) %}{% endfor %}",
  "replaced": "{% set n = namespace(v='abc') %}"
  "{% for _ in range(64) %}{% set n.v = n.v.replace('a', n.v) %}{% endfor %}",
  "a width": "{{ '%999999999999d' % 1 }}",
  "a width of format": "{{ '{:>999999999999}'.format(1) }}",
  "a width of the filter": "{{ '%999999999999s'|format('a') }}",
  "centred": "{{ 'a'|center(10 ** 11) }}",
  "justified": "{{ 'a'.ljust(10 ** 11) }}",
  "indented": "{{ 'a\nb'|indent(10 ** 11) }}",
  "indented as JSON": "{{ messages|tojson(indent=10 ** 11) }}",
  **{
    f"nested lists {name}": "{% set n = namespace(v=['a'], w=['a']) %}"
    "{% for _ in range(64) %}{% set n.v = [n.v, n.v] %}{% set n.w = [n.w, n.w] %}"
    f"{{% endfor %}}{use}"
    for name, use in {
      "joined": "{{ n.v|join }}",
      "written": "{{ n.v }}",
      "compared": "{{ n.v == n.w }}",
      "searched": "{{ ['b'] in [n.v, 1] }}",
      "as text": "{{ n.v ~ '' }}",
      "formatted": "{{ '%s' % n.v }}",
    }.items()
  },
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_would_not_end_is_refused(name, monkeypatch):
  monkeypatch.setattr(template_bounds, "MOST_WORK", 100_000)
  source = SOURCES["chatml"] + ENDLESS[name]
  start = time.thread_time()
  with pytest.raises(InputError, match="chat template fails: it does more"):
    make("chat", source)
  assert time.thread_time() - start < 10


@pytest.mark.parametrize("source", SOURCES.values())
def test_published_forms_need_little(source, monkeypatch):
  monkeypatch.setattr(template_bounds, "MOST_WORK", 10_000)
  turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
  assert make("chat", source).encode(turns).supervised.any()


def test_long_conversations_may_take_more(monkeypatch):
  monkeypatch.setattr(template_bounds, "MOST_WORK", 1000)
  # As templates that look for the last question at each message.
  source = (
    "{% for m in messages %}{% for n in messages[::-1] %}{{ n.role ~ m.content }}"
    "{% endfor %}{% endfor %}"
  )
  talk = TALK * 20
  text, _ = template_bounds.render_template(source, talk, False, False, {})
  assert len(text) == 40 * (20 * (4 + 9) + 40)


@pytest.mark.parametrize(
  "source",
  [
    "{{ 'ab'|replace('a', 'a' * 10 ** 12) if messages is none else '' }}",
    "{{ 'a' ~ 1 ~ none ~ ('b' ~ 2) }}{% set x = 'c' ~ 'd' %}{{ x }}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.role }}"
    "{% else %}none{% endfor %}",
    "{% for m in [[1, [2]], [3]] recursive %}{{ m if m is number else loop(m) }}"
    "{% endfor %}",
    "{{ '%05.1f' % 2.5 }}{{ 2 ** 10 }}{{ [1] * 3 }}{{ messages|tojson(indent=2) }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m }}"
    "{% endfor %}{{ 'ab'|upper|replace('A', 'x') }}{{ [3, 1]|sort|join('-') }}",
    "{% macro m(a, b='c') %}{{ a }}{{ caller() if caller }}{{ b }}{% endmacro %}"
    "{{ m(1) }}{% call m('y') %}z{% endcall %}{{ tools is none }}{{ documents }}",
  ],
)
def test_the_text_is_that_of_transformers(source):
  from transformers.utils.chat_template_utils import render_jinja_template

  texts, _ = render_jinja_template(conversations=[TALK], chat_template=source)
  text, _ = template_bounds.render_template(source, TALK, False, False, {})
  assert text == texts[0]


def test_spans_are_those_of_transformers():
  from transformers.utils.chat_template_utils import render_jinja_template

  source = SOURCES["chatml"]
  texts, spans = render_jinja_template(
    conversations=[TALK], chat_template=source, return_assistant_tokens_mask=True
  )
  ours = template_bounds.render_template(source, TALK, False, True, {})
  assert ours == (texts[0], spans[0])


def test_nothing_of_python_can_be_reached():
  for source in (
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{% set x = messages.append({}) %}",
    "{{ self._TemplateReference__context.environment.meter }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
  ):
    with pytest.raises(Exception, match=r"unsafe|safe|no loader|undefined"):
      template_bounds.render_template(source, TALK, False, False, {})
