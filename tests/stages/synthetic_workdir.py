"""A workdir as the stages leave it, of drawn rows: real files, no model needed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

SOURCES = ("colour", "shape", "count", "relation", "existence", "text", "chart")
SHARES = (0.36, 0.22, 0.14, 0.1, 0.08, 0.06, 0.04)
GROUPS = 24
COLOURS = ("red", "green", "blue", "orange", "purple")
BROKEN = (
  "missing image",
  "unreadable image",
  "malformed",
  "duplicate id",
  "no supervised token",
)
TASKS = SOURCES[:6]


def write_workdir(workdir: Path, rows: int = 2000, stages: str = "all") -> Path:
  """Writes the pool beside the workdir, and the artifacts of the stages.

  Args:
    workdir: where to; made.
    rows: of the pool, 3 % of which are set aside.
    stages: `check` or `select` stop after that stage; `all` do not.

  Returns:
    The pool's image folder.
  """
  rng = np.random.default_rng(7)
  images = workdir.parent / "images"
  images.mkdir(parents=True, exist_ok=True)
  workdir.mkdir(parents=True, exist_ok=True)
  for number in range(40):
    draw_scene(number).save(images / f"scene_{number}.png")
  (images / "truncated.png").write_bytes((images / "scene_0.png").read_bytes()[:90])
  source = rng.choice(len(SOURCES), rows, p=SHARES)
  aside = np.where(rng.random(rows) < 0.03, rng.integers(0, len(BROKEN), rows), -1)
  write_pool(workdir, images, source, aside)
  if stages != "check":
    usable = np.flatnonzero(aside < 0)
    loss = np.where(rng.random(rows) < 0.1, 2.5, 0.5) * rng.gamma(2.0, 0.6, rows)
    write_scores(workdir, usable, loss)
    write_main(workdir, source, aside, loss, evaluated=stages == "all")
    write_random(workdir, usable, rng, evaluated=stages == "all")
    write_measures(workdir)
  return images


def draw_scene(number: int) -> Image.Image:
  image = Image.new("RGB", (160, 120), (238, 240, 243))
  canvas = ImageDraw.Draw(image)
  rng = np.random.default_rng(number)
  for _ in range(1 + number % 4):
    x, y = (int(value) for value in rng.integers(5, [110, 70]))
    colour = COLOURS[int(rng.integers(5))]
    draw = canvas.ellipse if rng.random() < 0.5 else canvas.rectangle
    draw((x, y, x + 40, y + 40), fill=colour, outline="black")
  return image


def write_pool(workdir: Path, images: Path, source: np.ndarray, aside: np.ndarray):
  columns = {
    name: []
    for name in (
      "row id hash source images image_hashes pixels turns tokens supervised status"
      " reason detail truncated file offset length"
    ).split()
  }
  pool, offset = workdir.parent / "pool.jsonl", 0
  with open(pool, "wb") as file:
    for row, (kind, broken) in enumerate(zip(source, aside, strict=True)):
      name = SOURCES[kind]
      picture = None if name == "text" else f"scene_{row % 40}.png"
      reason = BROKEN[broken] if broken >= 0 else None
      if reason == "missing image":
        picture = "gone.png"
      elif reason == "unreadable image":
        picture = "truncated.png"
      question = f"What {name} do you see in the picture? Answer in one word."
      record = {
        "id": f"{name}_{row:06d}",
        "image": picture,
        "conversations": [
          {"from": "human", "value": f"<image>\n{question}"},
          {"from": "gpt", "value": COLOURS[row % 5]},
        ]
        * (1 + (row % 9 == 0) * 3),
      }
      if row == 3:
        record["conversations"][0]["value"] = "<script>alert('x')</script>" + "é" * 900
      data = json.dumps(record).encode()
      if reason == "malformed":
        data = b'{"id": 5, "conversations": "\xff none'
      file.write(data + b"\n")
      values = {
        "row": row,
        "id": None if reason == "malformed" else record["id"],
        "hash": hashlib.sha256(data).hexdigest(),
        "source": name,
        "images": [] if picture is None else [picture],
        "image_hashes": [] if picture is None else [f"{row % 40:064x}"],
        "pixels": [] if picture is None else [f"{row % 40:032x}"],
        "turns": len(record["conversations"]) // 2,
        "tokens": 22 + int(row * 37 % 60) + 16 * (picture is not None),
        "supervised": 2 + row % 5,
        "status": "ok" if reason is None else "aside",
        "reason": reason,
        "detail": f"found in record {row}" if reason else "",
        "truncated": False,
        "file": str(pool),
        "offset": offset,
        "length": len(data),
      }
      for column, value in values.items():
        columns[column].append(value)
      offset += len(data) + 1
  pq.write_table(pa.table(columns), workdir / "pool.parquet")
  summary = {"rows": len(source), "aside": int((aside >= 0).sum())}
  (workdir / "pool_summary.json").write_text(json.dumps(summary))
  write_provenance(workdir / "pool.provenance.json", "check", {"max_length": 256})


def write_scores(workdir: Path, usable: np.ndarray, loss: np.ndarray):
  folder = workdir / "scores"
  folder.mkdir()
  for place, part in enumerate(np.array_split(usable, 3)):
    table = pa.table({"row": part, "loss": loss[part].astype(np.float32)})
    pq.write_table(table, folder / f"part-{place:05d}.parquet")
  write_provenance(folder / "provenance.json", "score", {"signals": ["loss"]})
  (workdir / "seed").mkdir()
  write_metrics(workdir / "seed" / "metrics.jsonl", 60, 1.1)


def write_main(workdir, source, aside, loss, evaluated: bool):
  """A selection by group quotas with one threshold, as the objective gives."""
  usable = np.flatnonzero(aside < 0)
  rows, budget = len(source), len(usable) // 4
  group = np.full(rows, -1)
  group[usable] = (source[usable] * 7 + usable % 3) % GROUPS
  necessity = np.full(rows, np.nan)
  necessity[usable] = (np.argsort(np.argsort(loss[usable])) + 0.5) / len(usable)
  reason = np.array([f"set aside: {BROKEN[place]}" for place in aside], object)
  reason[usable] = "below threshold"
  gain, suspects = np.full(rows, np.nan), {}
  names, sizes = np.unique(group[usable], return_counts=True)
  target = dict(zip(map(int, names), sizes**0.5 / (sizes**0.5).sum(), strict=True))
  for number in target:
    members = np.flatnonzero(group == number)
    ordered = members[np.argsort(-necessity[members])]
    bound = len(members) * 15 // 100
    suspects[number] = bound
    reason[ordered[:bound]] = "suspect: upper necessity bound"
    rest = ordered[bound:]
    taken = np.arange(1, len(rest) + 1)
    mean = necessity[rest].mean()
    gain[rest] = mean + 0.4 * (np.log(target[number] * budget) - np.log(taken))
  order = np.argsort(-np.nan_to_num(gain, nan=-np.inf), kind="stable")[:budget]
  kept, rank = np.zeros(rows, bool), np.full(rows, -1)
  kept[order], rank[order] = True, np.arange(budget)
  reason[order] = "kept"
  threshold = float(gain[order].min())
  lines = [
    {
      "group": number,
      "name": f"cluster {number}",
      "size": int((group == number).sum()),
      "target_share": target[number],
      "reached_share": float((group[kept] == number).mean()),
      "mean_necessity": float(np.nanmean(necessity[group == number])),
      "quota": int((group[kept] == number).sum()),
      "floor": 1,
      "suspects": suspects[number],
    }
    for number in target
  ]
  folder = workdir / "arms" / "main"
  write_selection(
    folder / "selection",
    {
      "kept": kept,
      "rank": [int(r) if r >= 0 else None for r in rank],
      "group": [int(g) if g >= 0 else None for g in group],
      "necessity": pa.array(necessity, from_pandas=True),
      "gain": pa.array(gain, from_pandas=True),
      "threshold": [threshold if g >= 0 else None for g in group],
      "reason": reason,
      "group_name": [f"cluster {g}" if g >= 0 else None for g in group],
    },
    {
      "strategy": "kl",
      "budget": "25%",
      "signal": "loss",
      "threshold": threshold,
      "warnings": [],
      "groups": lines,
      "certificate": {"value": 0.5123, "bound": 0.5123, "gap": 0.0},
    },
  )
  write_rest(folder, 0.74, evaluated)


def write_random(workdir, usable, rng, evaluated: bool):
  rows, folder = int(usable.max()) + 1, workdir / "arms" / "random"
  kept = np.zeros(rows, bool)
  kept[rng.choice(usable, len(usable) // 4, replace=False)] = True
  rank = np.cumsum(kept) - 1
  write_selection(
    folder / "selection",
    {
      "kept": kept,
      "rank": [int(r) if k else None for r, k in zip(rank, kept, strict=True)],
      "group": pa.nulls(rows, pa.int32()),
      "necessity": pa.nulls(rows, pa.float32()),
      "gain": pa.nulls(rows, pa.float32()),
      "threshold": pa.nulls(rows, pa.float32()),
      "reason": np.where(kept, "kept", "not drawn"),
    },
    {"strategy": "random", "budget": "25%", "groups": [], "threshold": None},
  )
  write_rest(folder, 0.63, evaluated)


def write_measures(workdir: Path):
  folder = workdir / "measures"
  folder.mkdir()
  figures = ("rows", "divergence", "effective_groups", "coverage_radius")
  figures += ("mean_distance", "duplicates", "pool_rows_compared", "kept_rows_compared")
  sets = {
    "main (kl)": (480, 0.0123, 19.21, 0.4321, 0.1234, 0.052, 1000, 480),
    "random, 480 rows": (480, 0.0987, 14.32, 0.5432, 0.1357, 0.087, 1940, 480),
    "the pool": (1940, None, 14.1, 0.0, 0.0, 0.31, 1940, 1940),
  }
  found = {
    "sets": [
      {"name": name, **dict(zip(figures, values, strict=True))}
      for name, values in sets.items()
    ],
    "pool_rows": 1940,
    "duplicate_cosine": 0.95,
    "seed": 0,
    "missing": {},
  }
  (folder / "measures.json").write_text(json.dumps(found))
  path = folder / "provenance.json"
  write_provenance(path, "report", {})
  account = json.loads(path.read_text())
  chosen = workdir / "arms/main/selection/provenance.json"
  account["inputs"] = {"selection": json.loads(chosen.read_text())["digest"]}
  path.write_text(json.dumps(account))


def write_selection(folder: Path, columns: dict, summary: dict):
  folder.mkdir(parents=True)
  rows = len(columns["kept"])
  table = {"row": np.arange(rows), "id": [f"id {n}" for n in range(rows)], **columns}
  pq.write_table(pa.table(table), folder / "selection.parquet")
  (folder / "summary.json").write_text(json.dumps(summary))
  (folder / "selected.json").write_text("[]")
  config = {"strategy": summary["strategy"], "kl_weight": 0.4}
  write_provenance(folder / "provenance.json", "select", config)


def write_rest(folder: Path, skill: float, evaluated: bool):
  (folder / "tuned" / "hf").mkdir(parents=True)
  write_metrics(folder / "tuned" / "metrics.jsonl", 240, 1.4 - skill)
  write_provenance(folder / "tuned" / "provenance.json", "tune", {"epochs": 10})
  if not evaluated:
    return
  rng, scores, lines = np.random.default_rng(int(100 * skill)), {}, []
  for place, task in enumerate(TASKS):
    right = rng.random(150) < skill + 0.05 * (place - 2)
    scores[task] = right
    for number, score in enumerate(right):
      # The ids follow on one another: each task names its questions alike.
      lines.append({"id": f"q{number}", "task": task, "score": float(score)})
  (folder / "evaluation").mkdir()
  results = {"tasks": {task: summarise(found) for task, found in scores.items()}}
  results["macro"] = summarise(np.concatenate(list(scores.values())))
  results["overall"] = summarise(np.concatenate(list(scores.values())))
  for task in results["tasks"].values():
    task["metric"] = "exact_match"
  del results["macro"]["count"], results["macro"]["correct"]
  (folder / "evaluation" / "results.json").write_text(json.dumps(results))
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "evaluation" / "predictions.jsonl").write_text(text)


def summarise(right: np.ndarray) -> dict:
  value, half = float(right.mean()), float(1.96 * right.std() / len(right) ** 0.5)
  counts = {"count": len(right), "correct": int(right.sum())}
  return counts | {"value": value, "low": value - half, "high": value + half}


def write_metrics(path: Path, steps: int, scale: float):
  with open(path, "w") as file:
    for step in range(1, steps + 1):
      loss = scale * (0.2 + 2.0 / (1 + step / 12) + 0.05 * np.sin(step))
      line = {"step": step, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0}
      file.write(json.dumps(line) + "\n")


def write_provenance(path: Path, stage: str, config: dict):
  account = {
    "stage": stage,
    "config": config,
    "inputs": {"pool": hashlib.sha256(b"check").hexdigest()},
    "seed": 0,
    "outputs": {},
    "packages": {"numpy": np.__version__},
    "digest": hashlib.sha256(stage.encode()).hexdigest(),
  }
  path.write_text(json.dumps(account))
