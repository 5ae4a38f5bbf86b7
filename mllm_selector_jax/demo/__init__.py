"""The drawn demo: a pool, an evaluation set and captions, all of them generated.

Every task is a family of questions with short answers. Their shares of the pool have a
long tail: an easy head (`shape` and `color`), which the tiny base already masters, and
families that can be learned from a few hundred rows.

| task | share | asks for | answers |
|---|---|---|---|
| `shape` | 22 % | the shape of a colour's object, or of that in a region | 6 shapes |
| `color` | 20 % | the colour of a shape, in a region, of a sign | 8 colours |
| `existence` | 18 % | whether there is a shape, a colour, both, or a bar | yes, no |
| `count` | 8 % | how many objects, objects of a shape, or bars | one to four |
| `position` | 6 % | where an object is | 4 corners, center |
| `relation` | 5 % | on which side of another object an object is | 4 sides |
| `size` | 5 % | the shape or colour of the largest or smallest | shapes, colours |
| `text` | 5 % | what a sign says | 12 words |
| `extreme` | 4 % | the tallest or shortest bar | 8 colours |
| `fact` | 4 % | opposites, colours of things, the next or previous number | 29 words |
| `value` | 3 % | how high a bar is | one to four |

The images are of three sources, `scenes`, `signs` and `charts`. Most tasks ask about
scenes. `text` asks about signs, `extreme` and `value` about charts; `color` asks also
about signs, `existence` and `count` also about charts. Facts are asked without an
image, or with any image. The source of a row is the first folder in the path of its
image; a row without an image has none.

In addition the pool contains the following, each set by a field of `PoolOptions`: wrong
answers (another plausible answer to the question), misaligned images (those of another
row, which may fit by chance), near duplicates (the scene redrawn with other tints and
moved by up to a pixel), rows that share an image, questions that give their answer
away, conversations of several turns, JPEGs, and broken rows. Some images are oblong.

The files are `pool.json`, `images/` and `truth.parquet`. Selection never reads the
last, whose columns are row, id, task, wrong (all answers of the row are wrong),
misaligned, duplicate_of, answerable_without_image (facts, and questions that give their
answer away), broken (a key of `pool_mixture.BROKEN`, or null), answers (the right
answer of each turn), and scene (what the questions are about, as JSON).

The evaluation set has no such errors, and each answer of a task is equally frequent. A
hash of the content decides which scenes, and which wordings of facts, are reserved for
it. No seed and no option can bring one of these into a pool, or into the data that the
base is trained on.

Modules: `language` has the words, `scenes` the content of images, `drawing` their
pixels, `question_families` the tasks, and `pool_mixture` the rows. `drawn_pool`,
`drawn_questions` and `captions` write the files. `head` has the questions that the base
is trained on, and `make_base` trains it.
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
