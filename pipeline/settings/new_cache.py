"""Whether a command may create the cache of luigi.cfg: [paths] new_cache.  tracks

A cache whose disk is not mounted must not be created again in its mount point.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import cache
from pipeline.cli.console import warn_once
from pipeline.cli.system_errors import error_text
from pipeline.errors import ConfigError
from pipeline.files.places import require_writable

if TYPE_CHECKING:
    from pipeline.settings.sections import Settings


def is_new_cache(root: cache.Root) -> bool:
    """Whether there is no cache at `root` yet. Raises ConfigError for a folder in another cache,
    and NotADirectoryError for a file.
    """
    folder = cache.local_folder(root)
    if folder is not None and folder.is_file():
        raise NotADirectoryError(errno.ENOTDIR, "", str(folder))
    if cache.FeatureCache(root):
        return False
    above: list[Path] = []
    if folder is not None:
        above = [parent for parent in folder.resolve().parents if (parent / "zarr.json").is_file()]
    if above:
        raise ConfigError(
            f"{root}: it is in the cache {above[-1]}, which must hold nothing else. Name that one, "
            "or a folder beside it."
        )
    return not cache.store_at(root).exists("zarr.json")


def check_new_cache(settings: Settings, root: cache.Root) -> bool:
    """Whether there is no cache at `root` yet. Raises ConfigError if [paths] new_cache forbids
    creating it, and `root` is [paths] cache.

    Also raises what `is_new_cache` raises, and PipelineError for a folder that cannot be made.
    """
    if not is_new_cache(root):
        return False
    folder = cache.local_folder(root)
    if folder is not None:
        require_writable(folder, "Name another folder for the cache.")
    creation = _creation_of(settings, root)
    where = settings.source.where("paths", "new_cache")
    do = "To create one: --set paths.new_cache=yes"
    if creation == "no":
        raise ConfigError(f"{where} = no: {root} has no cache. Is its disk mounted? {do}")
    if creation == "once" and not _is_writable(settings.file):
        afterwards = f"{settings.file} cannot be changed to new_cache = no afterwards"
        problem = f"{root} has no cache, and {afterwards}"
        raise ConfigError(f"{where} = once: {problem}. Is the cache's disk mounted? {do}")
    return True


def _is_writable(file: Path) -> bool:
    try:
        file.open("r+b").close()
    except OSError:
        return False
    return True


def forbid_new_cache(settings: Settings, root: cache.Root) -> None:
    """After a commit to [paths] cache, change `new_cache = once` in luigi.cfg to `no`."""
    if _creation_of(settings, root) == "once":
        try:
            settings.source.section("paths").rewrite("new_cache", "once", "no")
        except OSError as error:
            warn_once(f"{error_text(error)} Set [paths] new_cache = no there.")


def _creation_of(settings: Settings, root: cache.Root) -> str:
    """[paths] new_cache if `root` is [paths] cache; else "yes": it says nothing of other caches."""
    paths = settings.named_paths
    # a URL stays what it is
    if paths is None or os.path.realpath(root) != os.path.realpath(paths.cache):
        return "yes"
    return paths.new_cache
