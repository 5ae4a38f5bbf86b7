"""`rooms`: people's questions about photographs of rooms (DAQUAR).

M. Malinowski and M. Fritz, "A Multi-World Approach to Question Answering about
Real-World Scenes" (NIPS 2014): 12,468 questions on the 1,449 photographs of NYU Depth
v2, all of which `all_qa_pairs.txt` holds. Only "in the image12" is removed from a
question, and underscores from an answer. The task is read off the question. Every
answer of the source to a question of the evaluation is right; an answer that lists
several things is right as it stands alone.
"""

import re
from pathlib import Path

from benchmarks.real_pools.rows import Drawn, Picture, Pool, Question
from benchmarks.real_pools.sources import Repository

SOURCE = Repository(
  "tezansahu/VQA-With-Multimodal-Transformers",
  "e737e61ffa1553b6593579b7c296fbd724c782f8",
  "Apache 2.0 of the repository; DAQUAR and NYU Depth v2 are published for research "
  "without a licence that the repository names",
)
# The photograph that a question speaks of, and the name that it is given there.
NAMED = re.compile(
  r"\s*(?:(?:in|of|from)\s+)?(?:the\s+|this\s+)?(image\s*\d+)\s*\?*\s*$"
)
TASKS = (
  ("number", r"^how ma?n?y?\b|\bnumber of\b"),
  ("colour", r"\bcolou?rs?\b"),
  ("things", r"^what are\b|^(what|which) objects\b|^which things\b"),
  ("side", r"\b(left|right)\b"),
  ("wall", r"\bwalls?\b"),
)
OTHER = "thing"


def find_task(question: str) -> str:
  """Names the kind of a question by the first rule that it fits."""
  return next((task for task, rule in TASKS if re.search(rule, question)), OTHER)


def read_pair(question: str, answer: str) -> Question | None:
  """Reads a question and its answer; None if no photograph is named at the end."""
  found = NAMED.search(question)
  if not found:
    return None
  text = question[: found.start()].strip() + "?"
  key = found[1].replace(" ", "")
  return Question(key, find_task(text), text, answer.strip().replace("_", " "))


def read(folder: Path) -> Drawn:
  """Reads all photographs and questions."""
  lines = SOURCE.read_one(folder, "dataset/all_qa_pairs.txt").decode().splitlines()
  pairs = zip(lines[::2], lines[1::2], strict=False)
  questions = [q for pair in pairs if (q := read_pair(*pair)) is not None]
  names = SOURCE.list_names(folder, "dataset/images/")
  pictures = {
    Path(name).stem: Picture(data) for name, data in SOURCE.read(folder, names)
  }
  return pictures, [q for q in questions if q.picture in pictures]


POOL = Pool(
  name="rooms",
  sources=(SOURCE,),
  read=read,
  rows={
    "thing": 600, "side": 360, "number": 200, "colour": 150, "things": 100, "wall": 90
  },
  asked={
    "thing": 110, "side": 110, "number": 90, "colour": 90, "things": 45, "wall": 60
  },
  share=15,
  sha256="34bc04d947d4bc69720ed3f9a0398b2d5cf02ebe040c0e3d9d37baf0339f09ba",
)  # fmt: skip
