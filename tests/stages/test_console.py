"""What people see of a long stage: the rate, the time left, and the log."""

from mllm_selector_jax.runs import console


def test_the_rate_leaves_out_compilation_and_what_was_done_before():
  pace = console.Pace()
  pace.note(100, now=1.0)  # found done
  pace.note(110, now=61.0)  # the first step, with its compilation
  assert pace.rate() is None
  pace.note(150, now=63.0)
  assert pace.rate() == 20.0
  pace.note(170, now=65.0)
  assert pace.rate() == 15.0
  assert pace.before == 100


def test_lines_show_rate_and_time_left_and_the_log_the_end(
  tmp_path, monkeypatch, capsys
):
  times = iter([0.0, 5.0, 25.0, 30.0, 35.0, 40.0])
  monkeypatch.setattr(console.time, "monotonic", lambda: next(times))
  told = console.Console(tmp_path / "log.txt")
  with told.progress("score", "row") as update:
    for done in (0, 10, 60, 110):
      update(done, 1010)
  lines = capsys.readouterr().err.splitlines()
  # 100 rows in the 10 s since the first step, so 900 more take 90 s.
  assert "110/1010" in lines[-1] and "10.00row/s" in lines[-1] and "01:30" in lines[-1]
  assert len(lines) == 2 and "?row/s" in lines[0]
  assert "score:  11%" in (tmp_path / "log.txt").read_text().splitlines()[-1]


def test_a_stage_that_never_told_anything(tmp_path):
  told = console.Console(tmp_path / "log.txt")
  with told.progress("score"):
    pass
  assert "score" in (tmp_path / "log.txt").read_text()
