"""The commands on a pool whose ids repeat, as the ids of LLaVA's 665K do."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax import main
from mllm_selector_jax.pipeline import card
from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.pipeline.measure_sets import measure_files
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.data.pools_on_the_spot import talk, write_images

ANSWERS = (
  "It is teal.",
  "Four of them.",
  "No, it is rather dark.",
  "On the left side.",
)
COPIES = (3, 20, 20)  # rows that the pool has once more, or twice


def make_records():
  """Eight images of four questions each; text alone; exact copies; no id at all."""
  records = []
  for image in range(8):
    for place, answer in enumerate(ANSWERS):
      turns = talk(f"<image>\nquestion {(image + place) % 5}?", answer)
      name = f"coco/{image:012d}.png"
      records.append({"id": f"{image:012d}", "image": name, "conversations": turns})
  records += [{"conversations": talk(f"{n} and 1?", f"{n + 1}")} for n in range(4)]
  records += [{"id": "", "conversations": talk(f"is {n} odd?", "no")} for n in range(3)]
  return records + [dict(records[row]) for row in COPIES]


EVERY = make_records()


@pytest.fixture(scope="module")
def scored(base, tmp_path_factory):
  folder = tmp_path_factory.mktemp("repeated")
  write_images(folder / "images", *(f"coco/{n:012d}.png" for n in range(8)))
  (folder / "pool.json").write_text(json.dumps(EVERY))
  settings = {
    "pool.demo.rows": 0,
    "pool.duplicate_ids": "keep",
    "pool.data": str(folder / "pool.json"),
    "pool.images": str(folder / "images"),
    "score.model": str(base),
    "select.control": False,
    "select.groups": "source",
    "select.bound": 0.0,
    "select.budget": "20",
    "export_selection.formats": "ids,weights,llava,trl,card",
  }

  def call(*commands, work="work", **overrides):
    given = settings | {key.replace("__", "."): v for key, v in overrides.items()}
    with small_run.open_run(folder / work, base, **given) as current:
      found = [command(current) for command in commands]
    return found[-1], folder / work

  call(COMMANDS["check"], COMMANDS["score"])
  return call


def read_selection(work):
  return pq.read_table(work / "arms/main/selection/selection.parquet").to_pydict()


def kept_rows(work):
  return np.flatnonzero(read_selection(work)["kept"])


def test_a_selection_measured_by_its_own_files_has_as_many_rows(scored):
  _, work = scored(COMMANDS["select"], COMMANDS["export-selection"])
  table, kept = read_selection(work), kept_rows(work)
  pool = pq.read_table(work / "pool.parquet").to_pydict()
  assert table["hash"] == pool["hash"] and pool["status"] == ["ok"] * len(EVERY)
  assert len(set(table["id"])) < len(kept) + 5 and len(kept) == 20
  arm = work / "arms/main"
  files = [
    arm / "selection/selected.json",
    arm / "selection/selection.parquet",
    arm / "exports/ids/ids.txt",
    arm / "exports/weights/weights.parquet",
    arm / "exports/llava/selected.json",
    arm / "exports/trl/selected.parquet",
  ]
  names = tuple(map(str, files))
  found, _ = scored(lambda run: measure_files(run, names))
  lines = found["sets"][: len(files)]
  assert [line["rows"] for line in lines] == [20] * len(files)
  assert all(line["notes"] == [] and line["repeated"] == 0 for line in lines)
  figures = [{k: v for k, v in line.items() if k != "name"} for line in lines]
  assert all(each == figures[0] for each in figures)
  weights = pq.read_table(files[3]).to_pydict()
  assert weights["row"] == kept.tolist()
  assert weights["hash"] == [pool["hash"][row] for row in kept]


def test_what_is_forced_in_is_those_rows_in_any_form(scored, tmp_path):
  wanted = [1, 6, 32, 33, 37, 41]  # of repeating ids, none, "" and a copy
  _, work = scored(
    COMMANDS["select"], select__force_in=",".join(f"row={r}" for r in wanted)
  )
  pool = pq.read_table(work / "pool.parquet").to_pydict()
  first = read_selection(work)
  forced = [row for row, why in enumerate(first["reason"]) if why == "forced in"]
  assert forced == wanted
  summary = json.loads((work / "arms/main/selection/summary.json").read_text())
  assert summary["options"]["force_in"] == wanted and summary["warnings"] == []
  columns = {
    name: [pool[name][row] for row in wanted] for name in ("id", "row", "hash")
  }
  pq.write_table(pa.table(columns), tmp_path / "list.parquet")
  lines = zip(columns["id"], wanted, columns["hash"], strict=True)
  text = "".join(f"{i}\t{row}\t{digest}\n" for i, row, digest in lines)
  (tmp_path / "ids.txt").write_text(f"id\trow\thash\n{text}")
  for name in ("list.parquet", "ids.txt"):
    place = len((work / "log.txt").read_text())
    scored(COMMANDS["select"], select__force_in=str(tmp_path / name))
    # The list's meaning is the setting, not its form.
    assert "/selection is unchanged" in (work / "log.txt").read_text()[place:]
  records = [EVERY[row] for row in wanted[:-1]]
  (tmp_path / "records.json").write_text(json.dumps(records))
  scored(COMMANDS["select"], select__leave_out=str(tmp_path / "records.json"))
  reason = read_selection(work)["reason"]
  assert [r for r, why in enumerate(reason) if why == "left out"] == wanted[:-1]


def test_an_id_of_several_rows_says_what_it_took(scored, capsys):
  settings = {"select__leave_out": ["000000000005", ""], "select__force_in": "row-33"}
  _, work = scored(COMMANDS["select"], **settings)
  table = read_selection(work)
  named = [r for r, why in enumerate(table["reason"]) if why == "left out"]
  assert named == [20, 21, 22, 23, 36, 37, 38, 40, 41]
  assert table["reason"][33] == "forced in"
  said = "select.leave_out: ids that several rows share: 2; all of their 9 rows"
  assert capsys.readouterr().err.count(f"Warning: {said}") == 1
  summary = json.loads((work / "arms/main/selection/summary.json").read_text())
  assert len(summary["warnings"]) == 1 and said in summary["warnings"][0]
  with pytest.raises(InputError, match=r"no row of the pool has the id 'nobody'"):
    scored(COMMANDS["select"], select__force_in="nobody")
  alike = {"select__target": "like", "select__floor": 0.0, "select__budget": "3"}
  _, work = scored(COMMANDS["select"], select__like="row=33", **alike)
  table = read_selection(work)
  groups = {g for g, k in zip(table["group_name"], table["kept"], strict=True) if k}
  assert groups == {"text"}


def test_a_run_refuses_a_wrong_list_before_anything_is_trained(scored):
  with pytest.raises(
    InputError, match=r"select.force_in: entry 0 \(row 99\) is no row"
  ):
    scored(COMMANDS["run"], work="refused", select__force_in="row=99")
  _, work = scored(COMMANDS["check"], work="refused")
  assert (work / "pool.parquet").exists() and not (work / "scores").exists()


def test_explain_takes_every_row_of_an_id(scored, tmp_path, capfd):
  _, work = scored(COMMANDS["select"])
  (head, *texts), _ = scored(lambda run: explain_rows(run, ("000000000000",)))
  assert head == "000000000000: 5 rows, 0, 1, 2, 3, 39"
  assert [text.split("\n")[0] for text in texts] == [
    f"000000000000 (row {row}, coco)" for row in (0, 1, 2, 3, 39)
  ]
  texts, _ = scored(lambda run: explain_rows(run, ("row=39, row=2",)))
  assert [text.split(",")[0] for text in texts] == [
    "000000000000 (row 39", "000000000000 (row 2",
  ]  # fmt: skip
  command = ["mllm-selector", "explain", "--config=demo", f"--workdir={work}"]
  assert main.run([*command, "--id=row=12"]) == 0
  assert "000000000003 (row 12, coco)" in capfd.readouterr().err
  assert main.run([*command, "--id=row=99"]) == 2


def test_a_card_of_repeated_ids_is_drawn_again(scored, tmp_path):
  given = {"select__force_in": "000000000001", "select__leave_out": "row=0,row=33"}
  _, work = scored(COMMANDS["select"], COMMANDS["export-selection"], **given)
  folder = work / "arms/main/exports/card"
  with small_run.open_run(tmp_path / "w", "unused") as current:
    assert "20 of 42 rows are kept" in card.verify(folder, current.cfg)


def test_scores_brought_in_go_to_the_rows_of_their_content(scored, tmp_path):
  _, work = scored(COMMANDS["select"])
  kept, scores = kept_rows(work), pq.read_table(work / "scores/part-00000.parquet")
  # One of the copies was seen by the model of these scores.
  brought = tmp_path / "scores"
  (brought / "embeddings").mkdir(parents=True)
  paths = sorted((work / "scores").glob("part-*.parquet"))
  scores = pa.concat_tables([pq.read_table(path) for path in paths])
  seen = pa.array([row in (39, 41) for row in range(len(EVERY))])
  place = scores.column_names.index("seed")
  scores = scores.set_column(place, "seed", seen)
  pq.write_table(scores, brought / "part-00000.parquet")
  vectors = [np.load(path) for path in sorted((work / "scores/embeddings").glob("*"))]
  np.save(brought / "embeddings/part-00000.npy", np.concatenate(vectors))
  given = {"score__model": None, "score__table": str(brought)}
  _, other = scored(COMMANDS["check"], COMMANDS["score"], work="brought", **given)
  paths = sorted((other / "scores").glob("part-*.parquet"))
  found = pa.concat_tables([pq.read_table(path) for path in paths])
  for name in ("row", "id", "hash", "loss", "seed"):
    assert found[name].to_pylist() == scores[name].to_pylist(), name
  # Without what is seen the selection is that of the scores' own workdir.
  given["score__table"] = str(work / "scores")
  _, other = scored(
    COMMANDS["check"], COMMANDS["score"], COMMANDS["select"], work="same", **given
  )
  assert kept_rows(other).tolist() == kept.tolist()
  # A pool with one copy more takes the scores of the others.
  more = work.parent / "more.json"
  more.write_text(json.dumps([*EVERY, EVERY[3]]))
  _, other = scored(
    COMMANDS["check"], COMMANDS["score"], work="more", pool__data=str(more), **given
  )
  found = pa.concat_tables(
    [pq.read_table(path) for path in sorted((other / "scores").glob("part-*"))]
  )
  assert found["loss"][42] == found["loss"][3] and found.num_rows == 43


def test_sweep_and_seed_say_which_rows(scored):
  _, work = scored(
    COMMANDS["select"], COMMANDS["seed"], select__sweep__budgets="5,10", seed__rows="8",
    seed__batch=4,
  )  # fmt: skip
  pool = pq.read_table(work / "pool.parquet").to_pydict()
  swept = pq.read_table(work / "sweep/kept.parquet").to_pydict()
  assert swept["hash"] == [pool["hash"][row] for row in swept["row"]]
  rows = str(work / "seed/rows.parquet")
  found, _ = scored(lambda run: measure_files(run, (rows,)))
  assert found["sets"][0]["rows"] == 8 and found["sets"][0]["notes"] == []
