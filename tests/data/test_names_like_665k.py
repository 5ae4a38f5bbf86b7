"""A pool with the ids and paths of LLaVA's mix, drawn."""

import json
import os

import pytest

from benchmarks import check_like_665k, pool_like_665k


def test_ids_and_paths_have_the_published_counts():
  names = pool_like_665k.draw_names()
  with_image = [name for name in names.images if name]
  assert len(names.ids) == len(names.images) == 665_298
  assert len(with_image) == 624_610 and len(set(with_image)) == 349_034
  folders = {
    prefix: sum(name.startswith(f"{prefix}/") for name in with_image)
    for prefix in ("coco/train2017", "vg", "gqa/images", "ocr_vqa/images")
  }
  published = (364_100, 86_417, 72_140, 80_000)
  assert list(folders.values()) == list(published)
  assert sum(n.startswith("textvqa/train_images/") for n in with_image) == 21_953
  # What keeping the first row of an id only would lose.
  assert 1 - len(set(names.ids)) / len(names.ids) == pytest.approx(0.41, abs=0.01)
  assert pool_like_665k.draw_names(2000) == pool_like_665k.draw_names(2000)


@pytest.mark.parametrize("links", [False, True])
def test_every_image_is_there_and_small(tmp_path, links):
  names = pool_like_665k.draw_names(600)
  folder = check_like_665k.write_images(tmp_path, names.images, links)
  rounds = check_like_665k.write_pool(tmp_path / "pool.json", names)
  records = json.loads((tmp_path / "pool.json").read_text())
  assert [record["id"] for record in records] == names.ids
  assert [record.get("image") for record in records] == names.images
  found = [folder / name for name in names.images if name]
  assert all(path.is_file() for path in found)
  assert len({os.stat(path).st_ino for path in found}) <= check_like_665k.DISTINCT
  outside = [path for path in found if not path.resolve().is_relative_to(folder)]
  assert bool(outside) == links
  marks = [record["conversations"][0]["value"].count("<image>") for record in records]
  assert marks == [int(name is not None) for name in names.images]
  turns = [len(record["conversations"]) / 2 for record in records]
  assert sum(turns) / len(turns) == rounds == pytest.approx(5.2, abs=0.8)
  texts = {json.dumps(record["conversations"]) for record in records}
  assert len(texts) == len(records)  # no row is another's duplicate
