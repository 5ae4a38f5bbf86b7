"""`signs`: photographs of traffic signs (German Traffic Sign Recognition Benchmark).

J. Stallkamp et al., "Man vs. computer" (Neural Networks 32, 2012). The repository has
26,640 of its training images, 30 of each of 888 tracks: frames of one sign as a car
drives up to it. Two frames of a track are read, and the frames of one track stay on
one side of the split. The label is the class's number; its meaning, shape and kind
below are those of the German road code, and the questions are made of them. Classes
are as uneven as in the source, 150 to 1,500 images.
"""

from pathlib import Path

from benchmarks.real_pools.rows import Drawn, Picture, Pool, Question, digest
from benchmarks.real_pools.sources import Repository

SOURCE = Repository(
  "jovanzac/Traffic",
  "4218b162fecd7ae1b1fa5aa9c33140c8d3dd9fc0",
  "none stated in the repository; the benchmark's images are published for free use",
)
FRAMES = ("00014", "00029")  # of 00000 to 00029; later ones are nearer and larger
LIMITS = (20, 30, 50, 60, 70, 80, None, 100, 120)  # km/h, of the classes from 0
WARNINGS = {
  18: "general caution", 19: "curve to the left", 20: "curve to the right",
  21: "double curve", 22: "bumpy road", 23: "slippery road", 24: "road narrows",
  25: "road work", 26: "traffic lights", 27: "pedestrians", 28: "children",
  29: "bicycles", 30: "ice or snow", 31: "wild animals", 11: "crossroads ahead",
}  # fmt: skip
DUTIES = {
  33: "turn right", 34: "turn left", 35: "straight ahead",
  36: "straight ahead or right", 37: "straight ahead or left", 38: "keep right",
  39: "keep left", 40: "roundabout",
}  # fmt: skip
BANS = {
  9: "no overtaking", 10: "no overtaking by trucks", 15: "no vehicles",
  16: "no trucks", 17: "no entry",
}  # fmt: skip
PRIORITIES = {12: "priority road", 13: "give way", 14: "stop"}
ENDS = {
  6: "end of speed limit", 32: "end of all limits", 41: "end of no overtaking",
  42: "end of no overtaking by trucks",
}  # fmt: skip
SHAPES = {12: "diamond", 13: "triangle", 14: "octagon"}


def describe(label: int) -> tuple[str, str, str]:
  """The meaning, the kind and the shape of a class's sign."""
  if label < len(LIMITS) and (limit := LIMITS[label]):
    return f"speed limit {limit}", "ban", "circle"
  for kind, signs in (("warning", WARNINGS), ("order", DUTIES), ("ban", BANS)):
    if label in signs:
      return signs[label], kind, "triangle" if kind == "warning" else "circle"
  if label in PRIORITIES:
    return PRIORITIES[label], "right of way", SHAPES[label]
  return ENDS[label], "end of a rule", "circle"


def ask(picture: str, label: int) -> list[Question]:
  """All questions about a sign; those with yes or no ask for one kind by the hash."""
  meaning, kind, shape = describe(label)
  asked = [
    Question(picture, "meaning", "What does this traffic sign say?", meaning),
    Question(picture, "kind", "What kind of traffic sign is this?", kind),
    Question(picture, "shape", "What shape is this traffic sign?", shape),
  ]
  if kind == "ban" and meaning.startswith("speed"):
    limit = meaning.split()[-1]
    text = "How many kilometres per hour does this sign allow?"
    asked.append(Question(picture, "limit", text, limit))
  wondered = ("warning", "ban", "order", kind)[int(digest(picture), 16) % 4]
  if wondered in ("warning", "ban", "order"):
    article = "an" if wondered == "order" else "a"
    text = f"Is this traffic sign {article} {wondered}?"
    answer = "yes" if wondered == kind else "no"
    asked.append(Question(picture, "yes or no", text, answer))
  return asked


def read(folder: Path) -> Drawn:
  """Reads two frames of each track, and the questions about them."""
  names = [
    name
    for name in SOURCE.list_names(folder, "gtsrb/")
    if Path(name).stem.split("_")[1] in FRAMES
  ]
  pictures, questions = {}, []
  for name, data in SOURCE.read(folder, names):
    pictures[name] = Picture(data, group=name.rpartition("_")[0])
    questions += ask(name, int(Path(name).parent.name))
  return pictures, questions


POOL = Pool(
  name="signs",
  sources=(SOURCE,),
  read=read,
  rows={"meaning": 750, "yes or no": 300, "kind": 190, "limit": 150, "shape": 110},
  asked={"meaning": 180, "yes or no": 90, "kind": 80, "limit": 80, "shape": 70},
  share=20,
  sha256="c55cc9357a9fd1fa191f7dfafa9b32e4fe6685e57fed740d42a88164dbd5bad6",
)
