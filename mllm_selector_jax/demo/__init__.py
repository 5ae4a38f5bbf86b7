"""The drawn demo: a pool, an evaluation set and captions, made from nothing.

Every task is a family of questions with short answers. The pool holds them in a
long tail: an easy head (`shape` and `color`), which the tiny base already masters,
and families that can be learned from a few hundred rows.

| task | share | asks for | answers |
|---|---|---|---|
| `shape` | 22 % | the shape of what has a colour, or is in a region | 6 shapes |
| `color` | 20 % | the colour of a shape, in a region, of a sign | 8 colours |
| `existence` | 18 % | whether a shape, a colour, a pair, a bar is there | yes, no |
| `count` | 8 % | how many objects, things of a shape, or bars | one to four |
| `position` | 6 % | where a thing is | 4 corners, center |
| `relation` | 5 % | on which side of another a thing is | 4 sides |
| `size` | 5 % | shape or colour of the largest or smallest | both of the above |
| `text` | 5 % | what a sign says | 12 words |
| `extreme` | 4 % | the tallest or shortest bar | 8 colours |
| `fact` | 4 % | opposites, colours of things, numbers beside others | 29 words |
| `value` | 3 % | how high a bar is | one to four |

Sources are `scenes`, `signs` and `charts`: most tasks ask about scenes; `color`
also about signs, `existence` and `count` also about charts, where `extreme` and
`value` are at home; facts stand alone, or beside any image.

A row's source is the first folder of its image; none for text alone. On top of
the mixture lie, each with its knob in `PoolOptions`, wrong answers (another
plausible answer of the same question), misaligned images (another row's, which
may agree by chance), near duplicates (the scene redrawn with other tints, moved
by up to a pixel), rows that share an image, questions that give their answer
away, conversations of several turns, JPEGs, oblong images, and broken rows.

Files: `pool.json`, `images/` and `truth.parquet`, which selection never reads:
row, id, task, wrong (all answers of the row are), misaligned, duplicate_of,
answerable_without_image (facts, and questions that give their answer away),
broken (a key of `pool_mixture.BROKEN`, or null), answers (the right ones, one a turn),
scene (what the questions are about, as JSON).

The evaluation set is clean and has each answer of a task equally often. A hash
of the content says which scenes, and which wordings of facts, are kept for it:
no seed and no option can bring one into a pool or among what the base learns.

Modules: `language` has the words, `scenes` what an image shows, `drawing` its pixels,
`question_families` the tasks, `pool_mixture` the rows; `drawn_pool`,
`drawn_questions` and `captions` write the files, `head` is what the base has been
asked, and `make_base` trains the base.
"""

from mllm_selector_jax.demo.captions import caption_examples, draw_captions
from mllm_selector_jax.demo.drawn_pool import draw_pool
from mllm_selector_jax.demo.drawn_questions import EvaluationOptions, draw_evaluation
from mllm_selector_jax.demo.head import HEAD, head_examples
from mllm_selector_jax.demo.language import vocabulary
from mllm_selector_jax.demo.pool_mixture import BROKEN, MIXTURE, PoolOptions
from mllm_selector_jax.demo.question_families import TASKS

__all__ = (
  "BROKEN",
  "HEAD",
  "MIXTURE",
  "TASKS",
  "EvaluationOptions",
  "PoolOptions",
  "caption_examples",
  "draw_captions",
  "draw_evaluation",
  "draw_pool",
  "head_examples",
  "vocabulary",
)
