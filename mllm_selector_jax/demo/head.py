"""The easy head of the pool: the tasks on whose questions the tiny base is trained."""

from collections.abc import Iterator

from PIL import Image

from mllm_selector_jax.demo.drawing import draw
from mllm_selector_jax.demo.pool_mixture import PoolOptions, plan_pool

HEAD = ("shape", "color")


def head_examples(rows: int, seed: int) -> Iterator[tuple[Image.Image, str, str]]:
  """Yields images, each with a question of the head and its right answer.

  The scenes are disjoint from those of the evaluation set. With a seed other than that
  of a pool, they are also other scenes than those of the pool.
  """
  options = PoolOptions(
    rows=rows,
    seed=seed,
    mixture=tuple((task, 1.0) for task in HEAD),
    wrong=0,
    misaligned=0,
    duplicates=0,
    shared=0,
    hinted=0,
    multi_turn=0,
    broken=0,
  )
  for row in plan_pool(options):
    yield draw(row.scene), row.questions[0], row.answers[0]
