"""The pages that `prepare` writes: one for each split, with its tracks.  [tracks]"""

from __future__ import annotations

from pathlib import Path

import cache
from pipeline.cli.progress import Progress
from pipeline.cli.text import count, from_here, size
from pipeline.errors import PipelineError
from pipeline.files.places import require_writable
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.steps import StepResult


def page_file(recipe: Recipe) -> Path:
    """The file of a split's page, beside the cache, or in the working folder for a cache in an
    object store: CACHE-DATASET-SPLIT.html.
    """
    root = cache.local_folder(recipe.root)
    folder = Path() if root is None else root.parent
    # two caches in one folder have different pages
    cache_name = Path(recipe.root).absolute().name
    return folder / f"{cache_name}-{recipe.dataset.name}-{recipe.split}.html"


def check_page(recipe: Recipe) -> None:
    """Raise PipelineError if a split's page cannot be written."""
    from pipeline.show.page import is_page

    page = page_file(recipe)
    if page.exists() and not is_page(page):
        raise _other_file(page)
    require_writable(page.absolute().parent, "Pages are written there: make it writable.")


def is_page_current(recipe: Recipe, split: cache.Split | None) -> bool:
    """Whether there is nothing to write: the split has no track, or its page shows it.

    split: as it is in the cache now; None if it was not converted.
    """
    from pipeline.show.page import shows

    if split is None or not len(split.tracks):
        return True
    return shows(page_file(recipe), split.manifest["digest"])


def write_page(recipe: Recipe, progress: Progress) -> StepResult:
    """Write the page of a split."""
    from pipeline.show.page import write_split_page

    page = page_file(recipe)
    page.parent.mkdir(parents=True, exist_ok=True)
    n = write_split_page(
        recipe.root, recipe.name, page, raw=recipe.raw, body=recipe.body, progress=progress
    )
    detail = f"{count(n, 'track')} in {from_here(page)} ({size(page.stat().st_size)})"
    return StepResult(details=[detail])


def _other_file(page: Path) -> PipelineError:
    return PipelineError(
        f"{page}: expected no file, or an earlier page of tracks; found another file, which is not "
        "replaced. Move it."
    )
