"""The measurements for accelerators, tried on CPUs in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from benchmarks import accelerator, accelerator_ledger, accelerator_report
from benchmarks.accelerator_ledger import Case, Ledger, read_figures
from tests import compiling

ROOT = pathlib.Path(__file__).parents[1]


def call(folder, command, *flags):
  """One call of a command on tiny sizes; its exit status and what it says."""
  words = [f"--out={folder / 'figures.jsonl'}", f"--work={folder / 'work'}"]
  words += ["--sizes=tiny", *flags]
  done = subprocess.run(
    [sys.executable, "-m", "benchmarks.accelerator", command, *words],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": compiling.QUICK, "OMP_NUM_THREADS": "1"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  return done.returncode, done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """A folder with the figures of some cases of kernels, scoring and training."""
  folder = tmp_path_factory.mktemp("accelerator")
  for command, only in (
    ("kernels", "kernels/near"),
    ("scoring", "scoring/tiny/B[13]"),
    ("scoring", "scoring/tiny/shared"),
    ("training", "training/tiny/lora/[ot]*[!d]"),
  ):
    status, said = call(folder, command, f"--only={only}", "--limit=900")
    assert status == 0, said
  return folder


def test_kernels_agree_with_all_pairs(measured):
  figures = read_figures(measured / "figures.jsonl")["kernels/near"]
  for kernel in ("splash", "xla", "blocks"):
    for place in ("forward", "query", "key", "value"):
      name = f"{kernel} {place} apart"
      assert figures[f"float32 {name}"] < 1e-5, name
      # Rounding is seen, and is all that is seen.
      assert 1e-4 < figures[f"bfloat16 {name}"] < 0.1, name
    assert figures[f"float32 {kernel} both ms"] > 0


def test_scoring_by_each_method_gives_the_same_losses(measured):
  found = read_figures(measured / "figures.jsonl")
  methods = {name: found[f"scoring/tiny/{name}"] for name in ("B1", "B3", "shared")}
  for figures in methods.values():
    np.testing.assert_allclose(figures["losses"], methods["B1"]["losses"], rtol=1e-5)
  # Without padding all that is executed is needed; sharing needs less.
  assert methods["B3"]["executed tokens"] == methods["B3"]["tokens"]
  assert methods["B1"]["executed tokens"] > methods["B1"]["tokens"]


def test_both_sides_train_the_same_adapters(measured):
  found = read_figures(measured / "figures.jsonl")
  ours, theirs = (found[f"training/tiny/lora/{side}"] for side in ("ours", "torch"))
  # Adapters are drawn by each side, and change nothing at the start.
  assert ours["losses"][0] == pytest.approx(theirs["losses"][0], rel=1e-5)
  assert ours["executed TFLOP a step"] > ours["model TFLOP a step"]
  assert theirs["model TFLOP a step"] > 0


def test_what_is_measured_is_not_measured_again(measured):
  before = (measured / "figures.jsonl").read_text()
  status, said = call(measured, "kernels", "--only=kernels/near")
  assert status == 0 and "1 of 1 cases are over" in said
  assert (measured / "figures.jsonl").read_text() == before


def test_the_report_has_a_table_of_each_command(measured):
  text = accelerator_report.format_report(measured / "figures.jsonl")
  assert "| near | 1 x 200 x 2 x 2 x 16 | float32 | splash |" in text
  assert "### tiny: 16 rows" in text and "| shared |" in text
  assert "| tiny lora | ours |" in text
  assert "Not measured" not in text


def test_an_interrupted_headline_goes_on(tmp_path):
  # So little time that it is stopped in its first stages.
  limit = accelerator_ledger.GRACE + 8
  flags = ("headline", "--seeds=3:4", "--epochs=1")
  status, said = call(tmp_path, *flags, f"--limit={limit}")
  assert status == accelerator_ledger.UNFINISHED, said
  figures = read_figures(tmp_path / "figures.jsonl")["headline/3"]
  assert figures["state"] == "stopped" and "plan" not in figures
  status, said = call(tmp_path, *flags, "--limit=1500")
  assert status == 0, said
  figures = read_figures(tmp_path / "figures.jsonl")["headline/3"]
  assert figures["state"] == "done"
  assert figures["kl-20%-3"]["rows"] == figures["random-20%-3"]["rows"] > 0
  text = accelerator_report.format_report(tmp_path / "figures.jsonl")
  assert "kl" in text.partition("## Headline")[2]


def test_a_case_that_fails_or_never_ends_is_not_run_for_ever(tmp_path):
  ledger = Ledger(tmp_path / "figures.jsonl")
  case = Case("scoring/7b/B1", {}, 200)
  stopped = {
    "case": case.key,
    "state": "stopped",
    "seconds": 300,
    "had_whole_call": False,
  }
  ledger.append([stopped])
  assert not ledger.is_over(case) and ledger.expected(case) == 450
  ledger.append([{**stopped, "had_whole_call": True}] * 2)
  assert ledger.is_over(case) and not ledger.is_over(case._replace(resumes=True))
  other = case._replace(key="scoring/7b/B4")
  ledger.append([{"case": other.key, "state": "failed", "error": "no compiler"}])
  assert Ledger(ledger.path).is_over(other)
  assert "- `scoring/7b/B4`: failed" in accelerator_report.format_report(ledger.path)


def test_a_line_that_was_cut_off_is_passed_over(tmp_path):
  path = tmp_path / "figures.jsonl"
  path.write_text('{"case": "a", "figure": "x", "value": 1}\n{"case": "b", "fig')
  ledger = Ledger(path)
  ledger.append([{"case": "c", "state": "done"}])
  assert [line["case"] for line in Ledger(path).lines] == ["a", "c"]


def make_wheel(folder, name, version):
  """A wheel of one module, whose content is the version."""
  about = f"{name}-{version}.dist-info"
  files = {
    f"{name}.py": f"VERSION = {version!r}\n" + "#" * 50_000,
    f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
  }
  record = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
  path = folder / f"{name}-{version}-py3-none-any.whl"
  with zipfile.ZipFile(path, "w") as wheel:
    for place, text in {**files, f"{about}/RECORD": record}.items():
      wheel.writestr(place, text)


def unpack(parts, store):
  """As on the other machine, where only the parts are."""
  return subprocess.run(
    [sys.executable, str(parts / "accelerator_pack.py"), str(parts), str(store)],
    capture_output=True,
    text=True,
    cwd=parts,
  )


def test_parts_that_come_in_two_calls_are_installed(tmp_path):
  wheels, parts, store = (tmp_path / name for name in ("wheels", "parts", "store"))
  wheels.mkdir()
  make_wheel(wheels, "carried_module", "1.5")
  words = ["pack", f"--into={parts}", f"--wheels={wheels}", "--megabytes=3"]
  assert accelerator.main(words) == 0
  names = [
    part["name"] for part in json.loads((parts / "manifest.json").read_text())["parts"]
  ]
  assert len(names) > 1
  assert all((parts / name).stat().st_size <= 3e6 for name in names)
  later = (parts / names[-1]).read_bytes()
  (parts / names[-1]).unlink()
  first = unpack(parts, store)
  assert first.returncode == 75 and f"still to come: {names[-1]}" in first.stdout
  (parts / names[-1]).write_bytes(later[:-1] + b"?")
  broken = unpack(parts, store)
  assert broken.returncode == 1 and names[-1] in broken.stdout
  (parts / names[-1]).write_bytes(later)
  (parts / names[0]).unlink()  # which came before
  last = unpack(parts, store)
  assert last.returncode == 0, last.stdout + last.stderr
  script = (
    "import carried_module, benchmarks.accelerator; print(carried_module.VERSION)"
  )
  path = f"{store / 'site'}:{store / 'code'}"
  done = subprocess.run(
    [sys.executable, "-P", "-c", script],
    env={**os.environ, "PYTHONPATH": path},
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert done.stdout.strip() == "1.5", done.stderr


def test_large_sizes_are_refused_without_an_accelerator(tmp_path, capsys):
  status = accelerator.main(["scoring", f"--out={tmp_path / 'a'}", "--sizes=7b"])
  assert status == 2 and not (tmp_path / "a").exists()
  assert "jax sees no accelerator" in capsys.readouterr().out


def test_parts_larger_than_can_be_carried_are_refused(tmp_path, capsys):
  words = ["pack", f"--into={tmp_path}", "--megabytes=61"]
  assert accelerator.main(words) == 2
  assert "at most 60" in capsys.readouterr().out
