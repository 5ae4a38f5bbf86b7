"""Lists as others publish them: ids, records and scores, of which some match no row."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.inputs.lists import Columns, read_references, split_columns
from mllm_selector_jax.inputs.references import find_rows
from mllm_selector_jax.types import InputError
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import talk, write_images
from tests.data.test_formats import check_file

ROWS = 30
KEPT = (3, 4, 9, 17, 21)
SCORES = (0.5, -2.0, 3.25, 0.5, 1e-3)


def make_records():
  """As LLaVA's 665K: ids of images, which repeat, and of text alone."""
  return [
    {
      "id": f"{row // 2:012d}" if row < 20 else f"wRAPp_{row}",
      "image": f"coco/{row // 2 % 5}.png",
      "conversations": talk(f"<image>\nquestion {row}?", f"answer {row % 4}"),
    }
    for row in range(ROWS)
  ]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
  folder = tmp_path_factory.mktemp("published")
  write_images(folder / "images", *(f"coco/{n}.png" for n in range(5)))
  path = formats_on_the_spot.write_pool(
    "llava", make_records(), folder / "images", folder
  )
  check_file(path, folder / "images", folder / "table", duplicate_ids="keep")
  return read_table(folder / "table")


def find(pool, value, most_missing=0.0):
  entries = read_references(str(value), "select.reference")
  return find_rows(pool, entries, "select.reference", most_missing=most_missing)


def write(folder, form, lines):
  """Entries with a score in each format; gives the path."""
  path = folder / f"list.{form}"
  if form == "json":
    path.write_text(json.dumps(lines))
  elif form == "jsonl":
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  elif form == "parquet":
    pq.write_table(pa.Table.from_pylist(lines), path)
  else:
    with open(path, "w", newline="") as file:
      dialect = "excel" if form == "csv" else "excel-tab"
      writer = csv.DictWriter(file, list(lines[0]), dialect=dialect)
      writer.writeheader()
      writer.writerows(lines)
  return path


FORMS = ("json", "jsonl", "csv", "tsv", "parquet")


@pytest.mark.parametrize("form", FORMS)
def test_ids_with_scores_in_every_format(pool, tmp_path, form):
  ids = [pool.id[row] for row in (21, 25, 29)]
  lines = [
    {"id": name, "influence": score, "other": "x"}
    for name, score in zip(ids, SCORES, strict=False)
  ]
  path = write(tmp_path, form, lines)
  found = find(pool, f"{path}@influence")
  assert found.rows.tolist() == [21, 25, 29]
  assert found.scores.tolist() == [0.5, -2.0, 3.25]
  inverted = find(pool, f"{path}@-influence")
  assert inverted.scores.tolist() == [-0.5, 2.0, -3.25]
  plain = find(pool, path)
  assert plain.rows.tolist() == [21, 25, 29] and plain.scores is None


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
def test_whole_records_whose_ids_repeat_have_their_own_scores(pool, tmp_path, form):
  records = make_records()
  lines = [
    {**records[row], "score": score} for row, score in zip(KEPT, SCORES, strict=True)
  ]
  found = find(pool, f"{write(tmp_path, form, lines)}@score")
  assert found.rows.tolist() == list(KEPT) and not found.missing
  assert found.scores.tolist() == list(SCORES)


def test_an_object_of_ids_and_scores(pool, tmp_path):
  scores = {
    pool.id[row]: score for row, score in zip((21, 25, 29), SCORES, strict=False)
  }
  path = tmp_path / "scores.json"
  path.write_text(json.dumps(scores, indent=1))
  found = find(pool, f"{path}@score")
  assert found.rows.tolist() == [21, 25, 29]
  assert found.scores.tolist() == [0.5, -2.0, 3.25]
  assert find(pool, f"{path}@-influence").scores.tolist() == [-0.5, 2.0, -3.25]
  plain = find(pool, path)
  assert plain.rows.tolist() == [21, 25, 29] and plain.scores is None


@pytest.mark.parametrize(
  "text", ['{"id": 7, "score": 1}', '{"row": 7, "score": 1}\n' * 2]
)
def test_entries_of_numbers_are_no_object_of_ids_and_scores(tmp_path, text):
  path = tmp_path / "entries.json"
  path.write_text(text)
  references = read_references(f"{path}@score", "select.reference")
  assert {(each.id, each.row, each.score) for each in references} <= {
    ("7", None, 1.0),
    (None, 7, 1.0),
  }


def test_a_score_of_an_object_that_is_not_finite_is_refused(tmp_path):
  path = tmp_path / "scores.json"
  path.write_text('{"a": 1.0, "b": NaN}')
  with pytest.raises(InputError, match="entry 1 has no finite number"):
    read_references(f"{path}@score", "select.reference")


def test_rows_and_hashes_in_csv_and_the_highest_of_several_scores(pool, tmp_path):
  lines = [
    {"row": 7, "hash": "", "s": 1.0},
    {"row": "", "hash": pool.hash[8], "s": 2.0},
    {"row": 7, "hash": pool.hash[7], "s": 4.0},
    {"row": 7, "hash": "", "s": 3.0},
  ]
  found = find(pool, f"{write(tmp_path, 'csv', lines)}@s")
  assert found.rows.tolist() == [7, 8] and found.scores.tolist() == [4.0, 2.0]
  assert (found.entries, found.repeated) == (4, 2)


def test_a_file_with_a_suffix_of_csv_may_be_lines_of_ids(pool, tmp_path):
  (tmp_path / "ids.csv").write_text("wRAPp_20\nwRAPp_29\n")
  assert find(pool, tmp_path / "ids.csv").rows.tolist() == [20, 29]
  with pytest.raises(InputError, match="first line names no column id, row or hash"):
    find(pool, f"{tmp_path / 'ids.csv'}@score")


@pytest.mark.parametrize("kind", ["ids", "records", "nameless", "rows", "hashes"])
def test_entries_that_match_no_row_are_counted_up_to_a_share(pool, tmp_path, kind):
  records = make_records()
  gone = {**records[0], "conversations": talk("another?", "one")}
  if kind == "ids":
    lines = [*(f"wRAPp_{row}" for row in range(21, 30)), "wRAPp_900"]
  elif kind == "records":
    lines = [*records[21:30], {**gone, "id": "wRAPp_900"}]
  elif kind == "nameless":
    lines = [*records[21:30], gone]
    lines = [{k: v for k, v in line.items() if k != "id"} for line in lines]
  elif kind == "rows":
    lines = [*({"row": row} for row in range(21, 30)), {"row": 900}]
  else:
    lines = [*({"hash": pool.hash[row]} for row in range(21, 30)), {"hash": "0" * 64}]
  path = write(tmp_path, "json", lines)
  found = find(pool, path, 0.1)
  assert found.rows.tolist() == list(range(21, 30))
  assert (found.missing, found.entries) == (1, 10)
  (note,) = found.notes
  assert note.startswith("entries that match no row of the pool: 1, of 10;")
  with pytest.raises(InputError, match=r"select.reference") as refused:
    find(pool, path, 0.09)
  assert str(refused.value).endswith(
    "Of 10 entries 1 match no row (10.00%), and select.most_missing=0.09 allows 0."
  )
  with pytest.raises(InputError) as refused:  # lists that have no such setting
    find_rows(pool, read_references(str(path), "select.like"), "select.like")
  assert "most_missing" not in str(refused.value)


@pytest.mark.parametrize(
  ("lines", "column", "words"),
  [
    ([{"id": "wRAPp_20", "a": 1}, {"id": "wRAPp_21"}], "a", "entry 1 has no finite"),
    ([{"id": "wRAPp_20", "a": "high"}], "a", "entry 0 has no finite number in the c"),
    ([{"id": "wRAPp_20", "a": float("nan")}], "a", "in the column 'a', which was"),
    ([{"id": "wRAPp_20", "a": 1}], "b", "entry 0 has no finite number in .* 'b'"),
    (["wRAPp_20"], "a", "entry 0 has no finite number"),
  ],
)
def test_an_entry_without_a_score_is_named(pool, tmp_path, lines, column, words):
  path = write(tmp_path, "json", lines)
  with pytest.raises(InputError, match=words):
    find(pool, f"{path}@{column}")


def test_a_column_is_told_from_a_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  score, none = Columns(score="score"), Columns()
  assert split_columns("a.json@score") == ("a.json", score)
  assert split_columns("a/b.csv@-my loss") == ("a/b.csv", Columns(score="-my loss"))
  assert split_columns("a.csv#n@s") == ("a.csv", Columns("n", "s"))
  assert split_columns("a.txt#n") == ("a.txt", Columns("n"))
  for text in ("a.json", "someone@host", "a@b/c.json", "a@b.json", "id@x", "a#b", "#a"):
    assert split_columns(text) == (text, none)
  (tmp_path / "a.json@score").write_text("[]")
  assert split_columns("a.json@score") == ("a.json@score", none)
  with pytest.raises(InputError, match=r"there is no file b.json"):
    read_references("b.json@score", "select.reference")
  np.testing.assert_equal(read_references("someone@host", "x")[0].inline, True)


def test_a_selection_as_icons_writes_it(pool, tmp_path):
  """Row numbers line by line, the highest votes last, and whole records of LLaVA."""
  records, picked = make_records(), [17, 3, 21, 4, 9]
  np.savetxt(tmp_path / "vote_top_indices.txt", picked, fmt="%d")
  with open(tmp_path / "vote_selected_data.json", "w") as file:
    json.dump([records[row] for row in picked], file, indent=4)
  for name in ("vote_top_indices.txt#row", "vote_selected_data.json"):
    found = find(pool, tmp_path / name)
    assert found.rows.tolist() == sorted(picked) and not found.notes
  (tmp_path / "list.txt").write_text(str(picked))  # its writer takes this form, too
  assert find(pool, tmp_path / "list.txt#row").rows.tolist() == sorted(picked)
  with pytest.raises(InputError, match=r"file are row numbers, write FILE#row"):
    find(pool, tmp_path / "vote_top_indices.txt")


def test_scores_and_a_selection_as_visnec_writes_them(pool, tmp_path):
  """A score of every row, by its number, since ids repeat; and records without it."""
  records, path = make_records(), tmp_path / "dataset_visnec_scores.csv"
  scores = [0.01 * (7 * row % ROWS) for row in range(ROWS)]
  with open(path, "w", newline="") as file:
    writer = csv.writer(file)
    names = ["row_idx", "id", "image_path", "loss_multimodal", "loss_text", "visnec"]
    writer.writerow(names)
    for row, record in enumerate(records):
      losses = f"{1 - scores[row]:.6f}", f"{1:.6f}"
      line = [row, record["id"], record["image"], *losses, f"{scores[row]:.6f}"]
      writer.writerow(line)
  found = find(pool, f"{path}#row_idx@visnec")
  assert found.rows.tolist() == list(range(ROWS)) and not found.notes
  np.testing.assert_allclose(found.scores, scores, atol=1e-6)
  by_id = find(pool, f"{path}@visnec")  # the higher score of the two of an id
  assert any("ids that several rows share: 10" in note for note in by_id.notes)
  selected = [
    {key: record[key] for key in ("id", "image", "conversations")}
    for record in (records[row] for row in KEPT)
  ]
  (tmp_path / "top15.json").write_text(json.dumps(selected, indent=2))
  assert find(pool, tmp_path / "top15.json").rows.tolist() == list(KEPT)


def test_numbers_as_presel_writes_them(pool, tmp_path):
  (tmp_path / "new_samples.json").write_text(json.dumps(list(KEPT)))
  found = find(pool, tmp_path / "new_samples.json#unique_idx")
  assert found.rows.tolist() == list(KEPT)
  records = [{**make_records()[row], "unique_idx": row} for row in KEPT]
  (tmp_path / "records.json").write_text(json.dumps(records))
  assert find(pool, tmp_path / "records.json#unique_idx").rows.tolist() == list(KEPT)


@pytest.mark.parametrize("form", FORMS)
def test_row_numbers_of_a_named_column_in_every_format(pool, tmp_path, form):
  lines = [{"n": row, "id": pool.id[row], "s": row / 4} for row in KEPT]
  path = write(tmp_path, form, lines)
  found = find(pool, f"{path}#n@s")
  assert found.rows.tolist() == list(KEPT)
  assert found.scores.tolist() == [row / 4 for row in KEPT]
  with pytest.raises(InputError, match="entry 0 has no row number in 'm'"):
    find(pool, f"{path}#m")


def test_row_numbers_that_cannot_be_those_of_the_pool_are_refused(pool, tmp_path):
  lines = [{"n": row + 1, "id": pool.id[row]} for row in (21, 25)]
  path = write(tmp_path, "csv", lines)
  with pytest.raises(InputError, match="whose row 22 has the id 'wRAPp_22'"):
    find(pool, f"{path}#n")
  (tmp_path / "rows.txt").write_text(f"3\n{ROWS}\n")
  with pytest.raises(InputError, match=f"row {ROWS}.* which has {ROWS} rows"):
    find(pool, f"{tmp_path / 'rows.txt'}#row")
  for text in ("3.5", "-1", "a", "9" * 30):
    (tmp_path / "rows.txt").write_text(f"3\n{text}\n")
    with pytest.raises(InputError, match="entry 1"):
      find(pool, f"{tmp_path / 'rows.txt'}#row")
