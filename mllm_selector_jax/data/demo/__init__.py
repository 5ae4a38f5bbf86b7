"""The drawn demo: a pool, an evaluation set and captions, made from nothing.

Every task is a family of questions with short answers. The pool holds them in a
long tail: an easy head, which a base that has seen captions masters in other
words, and rare families that can be learned from a few hundred rows.

| task | share | asks | answers | sources |
|---|---|---|---|---|
| `shape` | 22 % | the shape of what has a colour, a region, or is alone | 6 shapes | scenes |
| `color` | 20 % | the colour of a shape, a region, a sign | 8 colours | scenes, signs |
| `existence` | 18 % | whether a shape, a colour or a pair is there | yes, no | scenes, charts |
| `count` | 8 % | how many objects, of a shape, or bars | one to four | scenes, charts |
| `position` | 6 % | where a thing is | 4 corners, center | scenes |
| `relation` | 5 % | on which side of another a thing is | left, right, above, below | scenes |
| `size` | 5 % | shape or colour of the largest or smallest | 6 shapes, 8 colours | scenes |
| `text` | 5 % | what a sign says | 16 words | signs |
| `extreme` | 4 % | the tallest or shortest bar | 8 colours | charts |
| `fact` | 4 % | opposites, colours of things, next numbers, sums | 33 words | mostly none |
| `value` | 3 % | how high a bar is | one to five | charts |

A row's source is the first folder of its image; none for text alone. On top of
the mixture lie, each with its knob in `PoolOptions`, wrong answers (another
plausible answer of the same question), misaligned images (another row's, which
may agree by chance), near duplicates (the scene redrawn with other tints, moved
by up to a pixel), rows that share an image, questions that give their answer
away, conversations of several turns, JPEGs, oblong images, and broken rows.

Files: `pool.json`, `images/` and `truth.parquet`, which selection never reads:
row, id, task, wrong (all answers of the row are), misaligned, duplicate_of,
answerable_without_image (facts, and questions that give their answer away),
broken (a key of `plan.BROKEN`, or null), answers (the right ones, one a turn),
scene (what the questions are about, as JSON).

The evaluation set is clean and has each answer of a task equally often. A hash
of the content says which scenes, and which wordings of facts, are kept for it:
no seed and no option can bring one into a pool or among the captions.

Modules: `language` words, `scenes` what an image shows, `drawing` its pixels,
`tasks` the families, `plan` the rows, `pool`, `evaluation` and `captions` files.
"""

from mllm_selector_jax.data.demo.captions import caption_examples, draw_captions
from mllm_selector_jax.data.demo.evaluation import EvaluationOptions, draw_evaluation
from mllm_selector_jax.data.demo.language import vocabulary
from mllm_selector_jax.data.demo.plan import BROKEN, MIXTURE, PoolOptions
from mllm_selector_jax.data.demo.pool import draw_pool
from mllm_selector_jax.data.demo.tasks import TASKS

__all__ = (
  "BROKEN",
  "MIXTURE",
  "TASKS",
  "EvaluationOptions",
  "PoolOptions",
  "caption_examples",
  "draw_captions",
  "draw_evaluation",
  "draw_pool",
  "vocabulary",
)
