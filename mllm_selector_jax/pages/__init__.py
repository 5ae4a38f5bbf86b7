"""The report: one self-contained page for the person who owns the pool.

`build_report` reads what the other stages left in the workdir and returns the
page as text. Parts that no stage has made yet are named as such.
"""

from pathlib import Path

from mllm_selector_jax.data.images.image_folders import AnyFolders, ImageFolders

TITLE = "What was selected, and what it is worth"


def build_report(workdir: Path, images: AnyFolders, title: str = TITLE) -> str:
  """Builds the whole page; the same artifacts and images give the same bytes.

  Args:
    workdir: the run's folder, with at least `pool.parquet`.
    images: the pool's image folders, for the thumbnails; None shows none.
    title: the page's heading.

  Returns:
    HTML of less than 10 MB at any pool size, without scripts and without
    references to anything outside of it.

  Raises:
    InputError: the pool was not checked yet.
    RunError: an artifact cannot be read.
  """
  # Plotting and templates are slow to import, and only this stage needs them.
  from mllm_selector_jax.pages import report_page

  return report_page.render(Path(workdir), ImageFolders.of(images), title)
