"""The base model and the checked pool, opened as the config says."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mllm_selector_jax import listing, storage
from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing import loader
from mllm_selector_jax.data.pool import pool_table
from mllm_selector_jax.data.tokens import box_forms, conversation
from mllm_selector_jax.data.tokens.specials import read_choice
from mllm_selector_jax.inputs.drawn_demo import is_drawn
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.types import InputError, Params

if TYPE_CHECKING:
  import jax.sharding

DEMO_BASE = Path(__file__).parents[1] / "demo" / "base"
LINKS = ("follow", "refuse")
DTYPES = ("auto", "float32", "bfloat16")
CACHE_BYTES = 1 << 30  # of tokens and pixels that are read again


def base_path(run: Run) -> Path:
  """The base's directory; a hub name is looked up in the hub's cache first."""
  return find_model(run.cfg.model.path)


def find_model(name: str) -> Path:
  """The directory of a model that a setting names: a directory, a hub name, "demo".

  Raises:
    InputError: neither a directory nor a hub name that can be had.
  """
  return DEMO_BASE if name == "demo" else huggingface.find_model(name)


def hash_processing(run: Run) -> str:
  """Identity of what turns records into tokens and pixels: all but the weights."""
  files = [
    [path.name, storage.hash_file(path)]
    for folder in huggingface.list_folders(base_path(run))
    for path in sorted(folder.iterdir())
    if path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt")
  ]
  return artifacts.hash_json(files)


@functools.lru_cache(maxsize=4)
def _hash_folders(paths: tuple[Path, ...]) -> str:
  digests = [artifacts.hash_folder(path) for path in paths]
  return digests[0] if len(digests) == 1 else artifacts.hash_json(digests)


def hash_model(path: Path) -> str:
  """Identity of a model's directories; read once a process."""
  folders = huggingface.list_folders(path)
  return _hash_folders(tuple(folder.absolute() for folder in folders))


def model_config(run: Run) -> dict[str, Any]:
  """What of cfg.model a result follows from, beside the base's own bytes."""
  config = plain(run.cfg.model)
  # Kernels and recomputation agree to rounding, as numbers of devices do.
  del config["path"], config["attention"], config["remat"]
  return {**config, "dtype": dtype(run)}


def dtype(run: Run) -> str:
  """The compute type: bfloat16 is slow on CPUs and right on accelerators."""
  wanted = run.cfg.model.dtype
  if wanted != "auto":
    return wanted
  import jax

  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def read_encoder(run: Run) -> conversation.Encoder:
  """What turns records into tokens and pixels; no weights are read."""
  path = base_path(run)
  tokenizer, options = huggingface.read_processor(path, run.cfg.model.pad_images)
  return conversation.make_encoder(
    run.cfg.model.conversation,
    tokenizer,
    BaseImages(
      options,
      huggingface.read_image_tokens(path, tokenizer),
      run.cfg.model.max_tiles,
      run.cfg.model.resize_pixels,
    ),
    max_length=run.cfg.model.max_length,
    system=run.cfg.model.system,
    row_system=run.cfg.model.row_system,
    ends=huggingface.read_ends(path, tokenizer),
    chat_date=run.cfg.model.chat_date,
    content_specials=read_choice(run.cfg.model.content_specials),
    box_form=box_forms.choose_form(
      run.cfg.model.box_form, huggingface.read_family_name(path)
    ),
  )


def check_model(run: Run) -> MllmConfig:
  """Refuses a base whose files do not fit, before anything long is begun.

  Returns:
    The base's configuration.
  """
  read_encoder(run)
  path = base_path(run)
  config = huggingface.read_config(path)
  check_mesh(run, config)
  check_length(run, config)
  huggingface.check_weights(path, config)
  return config


def check_length(run: Run, config: MllmConfig) -> None:
  """Refuses rows beyond the length up to which the base's positions can be run."""
  allowed, wanted = config.decoder.max_length, run.cfg.model.max_length
  if config.decoder.limit and wanted > allowed:
    raise InputError(
      f"model.max_length is {wanted}, but beyond {allowed} tokens the base treats"
      f" positions otherwise ({config.decoder.limit}), which cannot be run. Give at"
      f" most --config.model.max_length={allowed}."
    )


def check_mesh(run: Run, config: MllmConfig) -> None:
  """Refuses a mesh that does not fit the devices or the model."""
  check_model_mesh(run.mesh, config)


def check_model_mesh(mesh: "jax.sharding.Mesh", config: MllmConfig) -> None:
  """Refuses a mesh that would cut one of the model's heads."""
  from mllm_selector_jax import sharding

  linear = config.decoder.linear
  further = {} if linear is None else {"linear_key_heads": linear.key_heads}
  if config.decoder.full is not None:
    further["full_key_value_heads"] = config.decoder.full.kv_heads
  sharding.check_heads(
    mesh,
    heads=config.decoder.heads,
    key_value_heads=config.decoder.kv_heads,
    vision_heads=config.vision.heads,
    **further,
  )


def read_model(run: Run, path: Path) -> tuple[MllmConfig, Params]:
  """A model directory's config, and its parameters laid out over the mesh."""
  from mllm_selector_jax import sharding
  from mllm_selector_jax.models import mllm
  from mllm_selector_jax.models.axes import logical_axes

  options = run.cfg.model
  config = huggingface.read_config(
    path, dtype=dtype(run), remat=options.remat, attention=options.attention
  )
  check_mesh(run, config)
  abstract = mllm.abstract(config)
  shardings = sharding.parameter_shardings(abstract, logical_axes(abstract), run.mesh)
  return config, huggingface.read_params(path, config, shardings)


def open_pool(run: Run) -> pool_table.PoolTable:
  """The checked pool; the check stage made it."""
  run.workdir.pool.digest()
  return pool_table.read_table(run.workdir.pool.path.with_name("pool.parquet"))


def open_reader(
  run: Run, pool: pool_table.PoolTable, keeps_tokens: bool = True
) -> loader.Reader:
  """Reads rows of the checked pool for this base.

  Args:
    run: the invocation.
    pool: the checked pool.
    keeps_tokens: whether rows are read more than once.
  """
  return loader.Reader(
    table=pool,
    encoder=read_encoder(run),
    folders=image_folders(run),
    max_pixels=run.cfg.pool.max_pixels,
    cache=loader.Cache(CACHE_BYTES),
    keeps_tokens=keeps_tokens,
  )


def pool_files(run: Run) -> list[str]:
  """The pool's data files; those of a drawn pool where the config draws one."""
  if is_drawn(run.cfg):
    return [str(run.workdir.demo.path / "pool.json")]
  files = split_paths(run.cfg.pool.data)
  if not files:
    raise InputError(
      "pool.data names no file. Give --config.pool.data=FILE (JSON, JSONL, Parquet,"
      " a tar, a TFDS folder or a mixture in YAML) and --config.pool.images=FOLDER."
    )
  return files


def image_folders(run: Run) -> ImageFolders:
  """Where the pool's images are; those of a drawn pool where the config draws one."""
  folders: list[str] = split_paths(run.cfg.pool.images)
  if is_drawn(run.cfg):
    folders = [str(run.workdir.demo.path / "images")]
  return ImageFolders.of(folders, run.cfg.pool.links == LINKS[0])


def scored_signals(cfg: Any) -> tuple[str, ...]:
  """The signals that `score.signals` of a config lists, each once."""
  return tuple(dict.fromkeys(listing.split_names(cfg.score.signals)))


def split_paths(value: str | tuple | list | None) -> list[str]:
  """The paths of a setting: one, several with commas, or a list of them."""
  if isinstance(value, str):
    return storage.split_paths(value)
  return [str(path) for path in value or ()]


def draw_rows(pool: Any, count: int, seed: int) -> np.ndarray:
  """That many usable rows at random, ascending; of a pool, its column `ok` is read."""
  rows = np.flatnonzero(pool.ok)
  chosen = np.random.default_rng(seed).permutation(rows)[:count]
  return np.sort(chosen)
