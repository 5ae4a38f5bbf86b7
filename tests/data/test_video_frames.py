"""Frames of a video that lie there as images."""

import pytest

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.pool import summary_text
from mllm_selector_jax.data.record_schemas.video_frames import take_frames
from mllm_selector_jax.types import Record
from tests.data.pools_on_the_spot import check_records, talk, write_images

FRAMES = [f"v/{number}.png" for number in range(10)]


def take(value, count):
  content = record_schemas.read_content(take_frames(Record(0, 1, value), count))
  return [picture.name for picture in content.pictures], content.turns[0].text


@pytest.mark.parametrize("count", [1, 3, 10, 99])
@pytest.mark.parametrize("form", ["video", "videos", "nested", "part"])
def test_frames_are_spread_evenly_over_the_video(form, count):
  turns = talk("<video>\nwhat happens?", "it falls")
  value = {
    "video": {"video": FRAMES, "conversations": turns},
    "videos": {"videos": FRAMES, "conversations": turns},
    "nested": {"videos": [FRAMES], "conversations": turns},
    "part": {
      "messages": [
        {
          "role": "user",
          "content": [
            {"type": "video", "video": FRAMES},
            {"type": "text", "text": "what happens?"},
          ],
        },
        {"role": "assistant", "content": "it falls"},
      ]
    },
  }[form]
  names, text = take(value, count)
  expected = {
    1: FRAMES[:1], 3: [FRAMES[0], FRAMES[4], FRAMES[9]], 10: FRAMES, 99: FRAMES
  }[count]  # fmt: skip
  assert names == expected
  assert text == "<image>\n" * len(expected) + "what happens?"


@pytest.mark.parametrize("video", ["a.mp4", ["a.mp4"], [], ["v/0.png", 3], "v"])
def test_what_is_no_list_of_frames_stays(video):
  value = {"video": video, "conversations": talk("<video>\nwhat?", "red")}
  record = Record(0, 1, value)
  assert take_frames(record, 2) is record


def test_a_checked_pool_reads_the_same_frames_again(tmp_path):
  write_images(tmp_path / "images", *FRAMES)
  records = [
    {"id": "film", "video": FRAMES, "conversations": talk("<video>\nwhat?", "red")},
    {"id": "file", "video": "a.mp4", "conversations": talk("<video>\nwhat?", "red")},
  ]
  summary, table = check_records(tmp_path, records, video_frames=2)
  assert table.images[0] == (FRAMES[0], FRAMES[9])
  assert summary["with_frames"] == 1 and list(summary["aside"]) == ["video"]
  assert "1 rows have frames of a video" in summary_text.format_summary(summary)
  content = record_schemas.read_content(table.record(0))
  assert [picture.name for picture in content.pictures] == [FRAMES[0], FRAMES[9]]
  summary, table = check_records(tmp_path, [*records, {**records[0], "id": "x"}] * 2,
    video_frames=1, max_images=1)  # fmt: skip
  assert table.ok.tolist() == [True, False, True] * 2
