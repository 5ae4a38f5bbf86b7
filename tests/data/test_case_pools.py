"""The table over a folder of small pools."""

import json

from benchmarks import case_pools
from tests.data.pools_on_the_spot import make_record, write_images, write_records


def test_every_input_has_a_line_and_paths_are_below_the_folder(tmp_path):
  cases = tmp_path / "cases"
  write_images(cases / "1_rooted/images", "0.png")
  (cases / "1_rooted").joinpath("none.json").write_text("[")
  rooted = "ROOT/1_rooted/images/0.png"
  write_records(cases / "1_rooted/pool.json", [make_record(0, rooted), make_record(1)])
  folder = cases / "2_linked"
  write_images(folder / "disk", "coco/0.png")
  (folder / "playground/data").mkdir(parents=True)
  (folder / "playground/data/coco").write_text("../../disk/coco")
  write_records(folder / "a,b.json", [make_record(0, "coco/0.png"), make_record(1)])
  inside = cases / "3_folders/hub/sub(a,b)"
  inside.mkdir(parents=True)
  lines = [json.dumps(make_record(number)) + "\n" for number in range(2)]
  inside.joinpath("train.jsonl").write_text("".join(lines))

  names = [str(path.relative_to(cases)) for path in case_pools.list_inputs(cases)]
  assert names == [
    "1_rooted/none.json",
    "1_rooted/pool.json",
    "2_linked/a,b.json",
    "3_folders/hub",
    "3_folders/hub/sub(a,b)",
  ]
  found = {name: case_pools.examine(cases, cases / name) for name in names}
  assert not any(outcome.broken for outcome in found.values())
  assert found["1_rooted/none.json"].rows is None
  assert found["1_rooted/pool.json"].rows == 2
  text = case_pools.format_table(list(found.values()))
  assert str(tmp_path) not in text and "/tmp" not in text
  assert text.count("\n| `") == len(names) and "5 inputs: " in text


def test_roots_and_links_are_made_in_a_copy(tmp_path):
  cases, place = tmp_path / "cases", tmp_path / "place"
  kind = cases / "kind"
  write_images(kind / "disk", "coco/0.png")
  (kind / "playground/data").mkdir(parents=True)
  (kind / "playground/data/coco").write_text("../../disk/coco\n")
  path = write_records(kind / "pool.json", [make_record(0, "ROOT/kind/disk/0.png")])
  copy = case_pools.write_roots(cases, kind / "pool.json", place)
  assert json.loads(copy.read_text())[0]["image"] == f"{cases}/kind/disk/0.png"
  assert "ROOT/" in open(path).read()
  images = case_pools.find_images(kind, place)
  assert (images / "coco").is_symlink() and (images / "coco/0.png").is_file()
  assert (kind / "playground/data/coco").is_file()
  assert case_pools.find_images(kind / "disk", place) is None
