"""The pages that `prepare` writes: one for each split, with its tracks.  [tracks]"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cache
from pipeline.cli.console import size
from pipeline.cli.progress import Progress
from pipeline.cli.text import count, from_here
from pipeline.errors import PipelineError
from pipeline.files.places import require_writable
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.steps import StepResult


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of a cache's splits."""

    root: cache.Root  # the cache
    named: Path | None  # the folder of --pages; None: the pages are beside the cache

    def file(self, recipe: Recipe) -> Path:
        """The file of a split's page: CACHE-DATASET-SPLIT.html."""
        folder = self.named
        if folder is None:
            root = cache.local_folder(self.root)
            folder = Path() if root is None else root.parent
        # two caches in one folder have different pages
        cache_name = Path(self.root).absolute().name
        return folder / f"{cache_name}-{recipe.dataset.name}-{recipe.split}.html"

    def check(self, recipe: Recipe) -> None:
        """Raise PipelineError if a split's page cannot be written."""
        from pipeline.show.page import is_page

        page = self.file(recipe)
        if page.exists() and not is_page(page):
            raise _other_file(page)
        require_writable(page.absolute().parent, "Name another folder for pages: --pages DIR")

    def is_current(self, recipe: Recipe, split: cache.Split | None) -> bool:
        """Whether there is nothing to write: the split has no track, or its page shows it.

        split: as it is in the cache now; None if it was not converted.
        """
        from pipeline.show.page import shows

        if split is None or not len(split.tracks):
            return True
        return shows(self.file(recipe), split.manifest["digest"])

    def write(self, recipe: Recipe, progress: Progress) -> StepResult:
        """Write the page of a split."""
        from pipeline.show.page import write_split_page

        page = self.file(recipe)
        page.parent.mkdir(parents=True, exist_ok=True)
        n = write_split_page(
            recipe.root, recipe.name, page, raw=recipe.raw, body=recipe.body, progress=progress
        )
        detail = f"{count(n, 'track')} in {from_here(page)} ({size(page.stat().st_size)})"
        return StepResult(details=[detail])


def _other_file(page: Path) -> PipelineError:
    return PipelineError(
        f"{page}: expected no file, or an earlier page of tracks; found another file, which is not "
        "replaced. Move it, or name another folder for pages: --pages DIR"
    )
