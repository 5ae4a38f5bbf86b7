"""Reads a selection's exports with the trainers' own code, where it is installed.

    python -m benchmarks.trainers --exports=WORKDIR/arms/main/exports --base=HF_DIR

Made by `mllm-selector export-selection` with the formats trl, llama_factory and
ms_swift. It needs none of this package's own requirements: run it in the environment
of each trainer. A trainer that is not installed is said to be missing.
"""

import argparse
import json
import pathlib


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--exports", type=pathlib.Path, required=True)
  parser.add_argument("--base", required=True, help="for TRL's collator: a processor")
  arguments = parser.parse_args()
  readers = {
    "trl": read_trl,
    "llama_factory": read_llama_factory,
    "ms_swift": read_ms_swift,
  }
  for name, read in readers.items():
    if not (arguments.exports / name).exists():
      print(f"{name}: not exported")
      continue
    try:
      print(f"{name}: {read(arguments.exports / name, arguments.base)}")
    except ImportError as error:
      print(f"{name}: not installed ({error})")


def read_trl(folder: pathlib.Path, base: str) -> str:
  """Through the collator that SFTTrainer gives rows with images to."""
  import datasets
  import trl
  from transformers import AutoProcessor
  from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

  data = datasets.load_dataset(
    "parquet", data_files=str(folder / "selected.parquet"), split="train"
  )
  processor = AutoProcessor.from_pretrained(base)
  if processor.tokenizer.pad_token is None:
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
  collate = DataCollatorForVisionLanguageModeling(processor)
  rows = [row for row in data if row["images"]][:4]
  batch = collate(rows)
  return (
    f"{len(data)} rows loaded; {len(rows)} collated by TRL {trl.__version__} to"
    f" input_ids {tuple(batch['input_ids'].shape)}, pixel_values"
    f" {tuple(batch['pixel_values'].shape)}"
  )


def read_llama_factory(folder: pathlib.Path, base: str) -> str:
  """Through its own dataset_info.json parser, loader and converter."""
  from llamafactory.data import converter, parser
  from llamafactory.hparams import DataArguments

  names = list(json.loads((folder / "dataset_info.json").read_text()))
  (attributes,) = parser.get_dataset_list(names, str(folder))
  import datasets

  data = datasets.load_dataset(
    "json", data_files=str(folder / attributes.dataset_name), split="train"
  )
  arguments = DataArguments(dataset_dir=str(folder), media_dir=str(folder))

  class Training:
    local_process_index = 0

  aligned = converter.align_dataset(data, attributes, arguments, Training())
  empty = sum(not row["_prompt"] for row in aligned)
  images = [path for row in aligned for path in row["_images"] or ()]
  there = sum(pathlib.Path(path).is_file() for path in images)
  return (
    f"{len(aligned)} rows converted, {empty} refused; {there} of {len(images)} images"
    " found"
  )


def read_ms_swift(folder: pathlib.Path, base: str) -> str:
  """Through its own loader and preprocessor."""
  try:
    from swift.dataset import load_dataset
  except ImportError:
    from swift.llm import load_dataset

  data, _ = load_dataset(str(folder / "selected.jsonl"), num_proc=1)
  images = [image for row in data for image in row.get("images") or ()]
  return f"{len(data)} rows loaded, {len(images)} images, columns {data.column_names}"


if __name__ == "__main__":
  main()
