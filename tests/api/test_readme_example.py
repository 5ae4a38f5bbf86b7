"""The Python of the README, run as it stands there."""

import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
  text = (ROOT / "README.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  rng = np.random.default_rng(0)
  np.save(tmp_path / "losses.npy", rng.gamma(2.0, size=200))
  np.save(tmp_path / "embeddings.npy", rng.normal(size=(200, 4)))
  monkeypatch.chdir(tmp_path)
  exec(code, {})
  assert len(np.load(tmp_path / "kept_rows.npy")) == 10
