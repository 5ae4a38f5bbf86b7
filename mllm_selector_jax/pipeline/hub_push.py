"""Uploads a model or a published selection to a hub of Hugging Face."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.types import InputError, RunError

# Which file says what a folder is, and the kind of repository that it becomes.
_KINDS = {
  "card.json": "dataset",
  "config.json": "model",
  "adapter_config.json": "model",
}


def push(folder: Path, name: str, public: bool) -> str:
  """Upload a folder to the repository of a name, which is made if there is none.

  The hub is that of HF_ENDPOINT, and the token that of `hf auth login` or HF_TOKEN, as
  huggingface_hub reads them.

  Args:
    folder: A card, a tuned model (`tuned/hf`) or an adapter.
    name: Name of the repository, as OWNER/NAME.
    public: Whether a new repository can be read by everybody.

  Returns:
    A sentence that says where it is.

  Raises:
    InputError: The folder is none of these, or the name is not one of a repository.
    RunError: The hub refused it or was not reached.
  """
  kind = find_kind(folder)
  import huggingface_hub
  from huggingface_hub.errors import HFValidationError

  hub = huggingface_hub.HfApi()
  try:
    made = hub.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
    commit: Any = hub.upload_folder(
      repo_id=made.repo_id,
      folder_path=folder,
      repo_type=kind,
      commit_message="Upload by mllm-selector",
    )
  except HFValidationError as error:
    raise InputError(f"--repo={name} is no name of a repository: {error}") from error
  except Exception as error:  # of the hub, or of the network below it
    text = " ".join(str(error).split())
    raise RunError(
      f"push: {hub.endpoint} did not take {name}: {text}. A token is given by"
      " `hf auth login` or HF_TOKEN, and another hub by HF_ENDPOINT; HF_HUB_OFFLINE"
      " must not be set."
    ) from error
  return f"push: {folder} is the {kind} {commit.repo_url}, commit {commit.oid}."


def find_kind(folder: Path) -> str:
  """Return the kind of repository for a folder, model or dataset.

  Raises:
    InputError: The folder is neither a card nor a model.
  """
  for file, kind in _KINDS.items():
    if (folder / file).is_file():
      return kind
  raise InputError(
    f"--folder={folder} has none of {', '.join(_KINDS)}. Give a card of"
    " export-selection (arms/main/exports/card), a tuned model (arms/main/tuned/hf) or"
    " an adapter."
  )
