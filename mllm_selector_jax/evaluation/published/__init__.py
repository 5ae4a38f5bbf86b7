"""The published files of benchmarks, each brought into the one form of a question.

A benchmark is one entry of `BENCHMARKS`; its name is what the config calls it.
"""

from mllm_selector_jax.evaluation.published import letters, short, yes_no
from mllm_selector_jax.evaluation.published.benchmark import Benchmark, Source

__all__ = ["BENCHMARKS", "Benchmark", "Source"]

BENCHMARKS: dict[str, Benchmark] = {
  **short.BENCHMARKS,
  **letters.BENCHMARKS,
  **yes_no.BENCHMARKS,
}
