"""Builds the report and the explorer, self-contained pages for a pool's owner.

`build_report` and `build_explorer` read the artifacts in the workdir and return a page
as HTML. For each artifact that has not been made yet, the page says so.
"""

from pathlib import Path

from mllm_selector_jax.data.images.image_folders import AnyFolders, ImageFolders

TITLE = "What was selected, and what it is worth"


def build_report(workdir: Path, images: AnyFolders, title: str = TITLE) -> str:
  """Build the page; the same artifacts and images give the same bytes.

  Args:
    workdir: The run's folder, with at least `pool.parquet`.
    images: The pool's image folders, for the thumbnails; None shows no images.
    title: The heading of the page.

  Returns:
    HTML of less than 10 MB for any size of the pool, without scripts and without
    references to other files.

  Raises:
    InputError: The pool was not checked yet.
    RunError: An artifact cannot be read.
  """
  # Plotting and templates are slow to import, and only this stage needs them.
  from mllm_selector_jax.pages import report_page

  return report_page.render(Path(workdir), ImageFolders.of(images), title)


def build_explorer(workdir: Path, images: AnyFolders, title: str = TITLE) -> str:
  """Build the page on which rows are searched, seen on a map, listed and judged.

  Args:
    workdir: The run's folder, with at least `pool.parquet`.
    images: The pool's image folders, for the thumbnails; None shows no images.
    title: The heading of the page.

  Returns:
    HTML of less than 25 MB for any size of the pool, without references to other files.
    Its policy allows no request, and no script but those of the package.

  Raises:
    InputError: The pool was not checked yet.
    RunError: An artifact cannot be read.
  """
  from mllm_selector_jax.pages import explorer_page

  return explorer_page.render(Path(workdir), ImageFolders.of(images), title)
