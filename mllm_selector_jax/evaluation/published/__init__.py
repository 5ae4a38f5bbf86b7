"""Converts the published files of benchmarks to records of questions.

A benchmark is one entry of `BENCHMARKS`, under its name in the config.
"""

from mllm_selector_jax.evaluation.published import letters, short, yes_no
from mllm_selector_jax.evaluation.published.benchmark import Benchmark, Source

__all__ = ["BENCHMARKS", "Benchmark", "Source"]

BENCHMARKS: dict[str, Benchmark] = {
  **short.BENCHMARKS,
  **letters.BENCHMARKS,
  **yes_no.BENCHMARKS,
}
